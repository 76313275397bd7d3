//! When a route or its version ends, as both are written.

use crate::build::unknown;
use crate::config::document::{Route, Version, VersionBy, Versions};
use crate::consumer::document::Day;
use crate::filters::{Deprecation, Successor};
use crate::value::{At, Code, Issue, Issues, Map, Name, Spanned};

/// What one place says, with the place of its first word.
struct Said<'a> {
    since: &'a Option<Spanned<Day>>,
    sunset: &'a Option<Spanned<Day>>,
    notice: &'a Option<Spanned<String>>,
    gone: &'a Option<Spanned<bool>>,
}

impl<'a> Said<'a> {
    fn by_route(route: &'a Route) -> Self {
        Said { since: &route.deprecated, sunset: &route.sunset, notice: &route.notice, gone: &route.gone }
    }

    fn by_version(version: &'a Version) -> Self {
        let Version { deprecated, sunset, notice, gone, .. } = version;
        Said { since: deprecated, sunset, notice, gone }
    }

    fn at(&self) -> Option<At> {
        let days = self.since.as_ref().or(self.sunset.as_ref()).map(|day| day.at);
        days.or(self.gone.as_ref().map(|gone| gone.at)).or(self.notice.as_ref().map(|notice| notice.at))
    }
}

/// What holds for a route in a version of its API: what it says itself, and for the rest what its version says.
pub(super) fn of(
    route: &Route,
    version: Option<(&Name, &Version)>,
    by: Option<&VersionBy>,
    issues: &mut Issues,
) -> Option<Spanned<Deprecation>> {
    let (own, of_version) = (Said::by_route(route), version.map(|(_, version)| Said::by_version(version)));
    let places = [Some(&own), of_version.as_ref()].into_iter().flatten();
    let since = places.clone().find_map(|said| said.since.as_ref());
    let sunset = places.clone().find_map(|said| said.sunset.as_ref());
    let gone = places.clone().find_map(|said| said.gone.as_ref()).filter(|gone| gone.value);
    let successor = match (&route.successor, version, by) {
        (Some(address), ..) => Some((Successor::Address(address.clone()), address.at)),
        (None, Some((name, version)), Some(by)) => {
            version.successor.as_ref().and_then(|to| Some((in_version(by, name, &to.value)?, to.at)))
        }
        _ => None,
    };
    let at = places.clone().find_map(Said::at).or(successor.as_ref().map(|(_, at)| *at))?;
    check(since, sunset, gone, issues);
    let value = Deprecation {
        since: since.map(|day| day.value),
        sunset: sunset.map(|day| day.value),
        successor: successor.map(|(successor, _)| successor),
        notice: places.clone().find_map(|said| said.notice.clone()),
        gone: gone.is_some(),
    };
    Some(Spanned { value, at })
}

fn check(
    since: Option<&Spanned<Day>>,
    sunset: Option<&Spanned<Day>>,
    gone: Option<&Spanned<bool>>,
    issues: &mut Issues,
) {
    if let (Some(since), Some(sunset)) = (since, sunset)
        && sunset.value.0 < since.value.0
    {
        let message = "the sunset lies before the deprecation";
        let issue = Issue::new(Code::CONFLICT, message).at(sunset.at).label("ends on this day");
        issues.push(issue.and(since.at, "is deprecated from this day on"));
    }
    if let (Some(gone), None) = (gone, sunset) {
        let issue = Issue::new(Code::CONFLICT, "`gone` needs a day: there is no `sunset`").at(gone.at);
        issues.push(issue.help("add for example `sunset: 2027-04-01`"));
    }
}

/// How a link names the same address in another version; a link cannot name a header field.
fn in_version(by: &VersionBy, from: &Name, to: &Name) -> Option<Successor> {
    match by {
        VersionBy::Path(_) => Some(Successor::Prefix(format!("/{from}"), format!("/{to}"))),
        VersionBy::Query(name) => Some(Successor::Parameter(name.clone(), to.to_string())),
        VersionBy::Header(_) => None,
    }
}

/// Checks what versions say of their successors.
pub(super) fn check_successors(versions: &Versions, issues: &mut Issues) {
    for (name, version) in versions.versions.iter() {
        let Some(successor) = &version.successor else { continue };
        check_successor(&versions.by, &versions.versions, name, successor, issues);
    }
}

fn check_successor(
    by: &VersionBy,
    all: &Map<Version>,
    name: &Spanned<Name>,
    successor: &Spanned<Name>,
    issues: &mut Issues,
) {
    let known: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    if !known.contains(&successor.as_str()) {
        issues.push(unknown("version", successor.as_str(), successor.at, &known));
    } else if successor.value == name.value {
        let message = format!("version `{}` cannot be its own successor", name.value);
        issues.push(Issue::new(Code::CONFLICT, message).at(successor.at));
    } else if let VersionBy::Header(header) = by {
        let message =
            format!("callers are not told of this successor: no link can name the header `{header}`");
        let issue = Issue::new(Code::UNUSED, message).at(successor.at);
        issues.push(issue.help("write `successor` on the routes, with an address"));
    }
}
