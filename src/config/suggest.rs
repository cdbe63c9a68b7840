//! "Did you mean": the nearest known name. It only proposes; nothing is ever corrected silently.

use super::keys::{self, KEYS};

/// The nearest of `options`, if one is near enough to be meant.
pub(super) fn nearest<'a>(
    text: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // 0.6: of five letters two may differ; further off, a proposal confuses more than it helps.
    let scored = options
        .into_iter()
        .map(|option| (strsim::normalized_damerau_levenshtein(text, option), option));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.6).then_some(best.1)
}

/// The setting that `name` (dotted, unknown) most likely means.
pub(super) fn key(name: &str) -> Option<String> {
    let name = name.to_lowercase().replace('-', "_");
    let parts: Vec<&str> = name.split('.').collect();
    let route = match parts[..] {
        [_, route, _] if keys::is_route_name(route) => route,
        _ => "NAME",
    };
    let leaf = parts.last().copied().unwrap_or_default();
    let exact: Vec<_> = KEYS.iter().filter(|key| key.leaf() == leaf).collect();
    if let [only] = exact[..] {
        return Some(with_route(only.name, route));
    }
    let names: Vec<String> = KEYS.iter().map(|key| with_route(key.name, route)).collect();
    // The right section with a misspelt key is likelier than another section altogether.
    let section = name.rsplit_once('.').map_or("", |(section, _)| section);
    let within: Vec<&str> = (names.iter().map(String::as_str))
        .filter(|known| {
            known
                .rsplit_once('.')
                .is_some_and(|(known, _)| known == section)
        })
        .collect();
    if let Some(found) = nearest(
        leaf,
        within.iter().filter_map(|name| name.rsplit('.').next()),
    ) {
        return Some(format!("{section}.{found}"));
    }
    nearest(&name, names.iter().map(String::as_str)).map(Into::into)
}

/// The section that `name` most likely means.
pub(super) fn section(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let sections = KEYS
        .iter()
        .map(|key| key.section().split('.').next().unwrap_or_default());
    nearest(&name, sections)
}

/// The setting whose variable `name` would be, were every `__` a single `_`.
pub(super) fn look_alike(name: &str) -> Option<String> {
    let name = name.to_uppercase();
    let flat = |text: &str| text.replace("__", "_");
    for key in keys::of_service() {
        if flat(&keys::variable(key.name)) == flat(&name) {
            return Some(keys::variable(key.name));
        }
    }
    let rest = flat(&name);
    let rest = rest.strip_prefix("FTPULSE_ROUTES_")?;
    // The longest leaf first: `…_PASSWORD_FILE` is not the `file` of a route `x_password`.
    let mut routes: Vec<_> = keys::of_routes().collect();
    routes.sort_by_key(|key| std::cmp::Reverse(key.leaf().len()));
    for key in routes {
        let route = rest.strip_suffix(&format!("_{}", key.leaf().to_uppercase()));
        if let Some(route) = route.filter(|route| !route.is_empty()) {
            return Some(keys::variable(&with_route(key.name, &route.to_lowercase())));
        }
    }
    None
}

/// The variable nearest to `name`, which begins with `FTPULSE_`.
pub(super) fn variable(name: &str) -> Option<String> {
    let flat = name.to_uppercase().replace("__", "_");
    let known: Vec<String> = keys::of_service()
        .map(|key| keys::variable(key.name))
        .collect();
    let flats: Vec<String> = known.iter().map(|name| name.replace("__", "_")).collect();
    // The common prefix makes all variables look alike: compare what follows it.
    let found = nearest(
        flat.get(8..)?,
        flats.iter().filter_map(|name| name.get(8..)),
    )?;
    let index = flats.iter().position(|name| name.ends_with(found))?;
    known.get(index).cloned()
}

fn with_route(name: &str, route: &str) -> String {
    name.replace("NAME", route)
}
