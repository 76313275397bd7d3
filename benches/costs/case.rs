//! One row of the table.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Something that costs.
pub struct Case {
    /// What, such as `routes/10000/hit`.
    pub name: String,
    /// How often it is done at a time: once so that everything is warm, then once more to be measured.
    pub times: usize,
    prepare: Box<dyn Fn() -> Result<Work, String>>,
}

/// What is to be done, and what between.
pub struct Work {
    /// One of it; the number counts up, for those that take turns.
    pub one: Box<dyn FnMut(usize)>,
    /// What is done between two measurements, and not measured.
    pub settle: Box<dyn FnMut()>,
}

impl Work {
    /// Work with nothing between.
    pub fn new(one: impl FnMut(usize) + 'static) -> Work {
        Work { one: Box::new(one), settle: Box::new(|| ()) }
    }

    /// Does it so often.
    #[inline]
    pub fn repeat(&mut self, from: usize, times: usize) {
        (from..from + times).for_each(|at| (self.one)(at));
    }
}

impl Case {
    /// A case whose work `prepare` makes; what that takes is not measured.
    pub fn new<P>(name: impl Into<String>, times: usize, prepare: P) -> Case
    where
        P: Fn() -> Result<Work, String> + 'static,
    {
        Case { name: name.into(), times, prepare: Box::new(prepare) }
    }

    /// The work, done once as often as it will be when it is measured.
    ///
    /// # Errors
    /// It cannot be prepared.
    pub fn warm(&self) -> Result<Work, String> {
        let mut work = (self.prepare)()?;
        work.repeat(0, self.times);
        (work.settle)();
        Ok(work)
    }
}

/// What a future gives that waits for nothing.
pub fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Numbers in no order that caches would like, the same in every run.
pub fn scattered(at: usize) -> usize {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

/// An error as text.
pub fn text(error: impl Display) -> String {
    error.to_string()
}
