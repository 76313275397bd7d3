//! A configuration of 10,000 routes: read, built, built again as a reload does, and let go.

use super::case::{Case, Work};
use super::documents::{build, built, of_routes, read};
use std::hint::black_box;

const SIZES: [usize; 2] = [1_000, 10_000];

/// Two sizes, so that it shows whether ten times as much costs ten times as much.
pub fn cases() -> Vec<Case> {
    SIZES
        .into_iter()
        .flat_map(|count| {
            [
                Case::new(format!("snapshot/read/{count}"), 1, move || {
                    let document = of_routes(count)?;
                    Ok(Work::new(move |_| assert!(black_box(read(&document)).is_ok())))
                }),
                Case::new(format!("snapshot/build/{count}"), 1, move || {
                    let built = built(&of_routes(count)?)?;
                    Ok(Work::new(move |_| assert!(build(&built.loaded, &built.shared, None).is_ok())))
                }),
                Case::new(format!("snapshot/build-again/{count}"), 1, move || {
                    let built = built(&of_routes(count)?)?;
                    let running = built.snapshot.clone();
                    Ok(Work::new(move |_| {
                        assert!(build(&built.loaded, &built.shared, Some(&running)).is_ok())
                    }))
                }),
            ]
        })
        .collect()
}
