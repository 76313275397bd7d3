//! A panic costs the request in which it happens, and no other: it is answered with 500, logged and counted, and its
//! connection is not used again where nobody can say what state it is in.

use super::Context;
use super::client::Client;
use crate::observe::panics::{Panicked, guarded};
use crate::reply::{Kind, Reply};
use std::pin::pin;

impl Context {
    /// The outcome of work for this request, which may have panicked.
    ///
    /// # Errors
    /// As of the work; a panic carries a refusal.
    pub(super) fn rescue<T>(&mut self, worked: Result<pingora::Result<T>, Panicked>) -> pingora::Result<T> {
        worked.unwrap_or_else(|panicked| {
            self.lament(&panicked);
            Err(self.refuse(Kind::INTERNAL))
        })
    }

    /// Answers in any case: without the steps of the route, should one of them panic over the answer.
    pub(super) async fn respond_anyhow(
        &mut self,
        client: &mut Client<'_>,
        reply: Reply,
    ) -> pingora::Result<()> {
        let again = reply.clone();
        let answered = guarded(pin!(self.respond(client, reply))).await;
        match answered {
            Err(panicked) if !client.has_begun() => {
                self.lament(&panicked);
                let route = self.route.take();
                let answered = self.respond(client, again).await;
                self.route = route;
                answered
            }
            worked => self.rescue(worked),
        }
    }

    /// Why something has ended that cannot be answered any more; a panic is an end like any other.
    pub(super) fn mourn(&self, ended: Result<Option<Kind>, Panicked>) -> Option<Kind> {
        ended.unwrap_or_else(|panicked| {
            self.lament(&panicked);
            Some(Kind::INTERNAL)
        })
    }

    fn lament(&self, panicked: &Panicked) {
        log::error!("request {}: {panicked}", self.exchange.id());
    }
}
