//! The cache: what it holds, and purges.

use super::change::{body, failure, forbidden, parameters};
use super::{App, json, not_allowed};
use crate::cache::purge::{How, Purge, What};
use crate::cache::store::Stats;
use crate::observe::metrics::{Metrics, TierFacts};
use crate::value::counted;
use http::{Method, Response, StatusCode};
use pingora::protocols::http::ServerSession;
use serde::{Deserialize, Serialize};

/// What a purge has done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Purged {
    /// Stored answers that it has met.
    pub objects: usize,
    /// Whether they are still there, to be validated before their next use.
    pub soft: bool,
}

/// What is to be purged, in a body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    url: Several,
    prefix: Several,
    tag: Several,
    all: bool,
    soft: bool,
}

/// None, one or several.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Several {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Several {
    fn add(&mut self, text: String) {
        *self = match std::mem::take(self) {
            Several::None => Several::One(text),
            Several::One(one) => Several::Many(vec![one, text]),
            Several::Many(mut many) => {
                many.push(text);
                Several::Many(many)
            }
        };
    }

    fn into_vec(self) -> Vec<String> {
        match self {
            Several::None => Vec::new(),
            Several::One(one) => vec![one],
            Several::Many(many) => many,
        }
    }
}

impl Wanted {
    fn from_query(query: &str) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        for (name, value) in parameters(query) {
            let is_set = matches!(value.as_str(), "" | "1" | "true");
            match name.as_str() {
                "url" => wanted.url.add(value),
                "prefix" => wanted.prefix.add(value),
                "tag" => wanted.tag.add(value),
                "all" => wanted.all = is_set,
                "soft" => wanted.soft = is_set,
                other => return Err(format!("`{other}` is not known")),
            }
        }
        Ok(wanted)
    }

    fn purges(self) -> Result<(Vec<What>, bool), String> {
        let mut all = Vec::new();
        for url in self.url.into_vec() {
            all.push(What::url(&url)?);
        }
        for prefix in self.prefix.into_vec() {
            all.push(What::prefix(&prefix)?);
        }
        all.extend(self.tag.into_vec().into_iter().map(|tag| What::Tag(tag.into())));
        if self.all {
            all.push(What::All);
        }
        if all.is_empty() {
            return Err("say what: `url`, `prefix`, `tag` or `all`".to_owned());
        }
        Ok((all, self.soft))
    }
}

impl App {
    /// `GET /cache`.
    pub(super) fn cache(&self) -> Stats {
        self.state.running.shared.cache.stats()
    }

    /// `POST /cache/purge`: what is said in the query or in a JSON body.
    pub(super) async fn purge(&self, session: &mut ServerSession, query: &str) -> Response<Vec<u8>> {
        if session.req_header().method != Method::POST {
            return not_allowed("POST");
        }
        if !self.may_change(session) {
            return forbidden();
        }
        let text = match body(session).await {
            Ok(text) => text,
            Err(response) => return response,
        };
        let wanted = match text.trim() {
            "" => Wanted::from_query(query),
            text => serde_json::from_str(text).map_err(|error| error.to_string()),
        };
        let (all, soft) = match wanted.and_then(Wanted::purges) {
            Ok(purges) => purges,
            Err(why) => return failure(StatusCode::BAD_REQUEST, why, None),
        };
        let store = self.state.running.shared.cache.clone();
        let said = all.iter().map(What::to_string).collect::<Vec<_>>().join(", ");
        let how = if soft { How::Expire } else { How::Remove };
        let purge = move || {
            let met = all.into_iter().map(|what| store.purge(Purge { what, how })).sum();
            (met, store.settle())
        };
        match tokio::task::spawn_blocking(purge).await {
            Ok((_, false)) => {
                let why = "what is on disk was not removed in time; it is not given while this process runs";
                failure(StatusCode::INTERNAL_SERVER_ERROR, why.to_owned(), None)
            }
            Ok((objects, true)) => {
                let how = if soft { "softly purged" } else { "purged" };
                log::info!("cache: {how} {said}: {}", counted(objects, "stored answer"));
                json(&Purged { objects, soft })
            }
            Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), None),
        }
    }

    /// Copies in what the cache knows of itself.
    pub(super) fn show_cache(&self, metrics: &Metrics) {
        let stats = self.cache();
        metrics.cache_tier("memory", facts(&stats.memory));
        if let Some(disk) = &stats.disk {
            metrics.cache_tier("disk", facts(&disk.tier));
            let errors = [("read", disk.read_errors), ("write", disk.write_errors)];
            metrics.cache_disk(disk.state == "failing", disk.skipped, errors);
        }
        metrics.cache_filling(stats.filling_bytes);
        metrics.cache_purges(stats.purges.iter().map(|(what, made)| (what.as_str(), *made)));
    }
}

fn facts(tier: &crate::cache::store::Tier) -> TierFacts {
    TierFacts { bytes: tier.bytes, objects: tier.objects, evicted: tier.evicted, purged: tier.purged }
}
