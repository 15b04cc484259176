//! That OpenSearch makes no index of ours by itself.
//!
//! A write to an index that was dropped would make it again: without the tenants' aliases, so that
//! nobody finds what is in it, and beyond the time that its events are kept. There is no such option
//! of one `_bulk` request or of one template, only a list of patterns for the whole cluster.

use crds::names::INDEX_PATTERNS;

/// What the setting should be, if it is not: `current` with our patterns forbidden in front, where
/// the first match decides. Whatever else it says stays as it is.
pub(super) fn wanted(current: Option<&str>) -> Option<String> {
    let forbidden = INDEX_PATTERNS.map(|pattern| format!("-{pattern}"));
    let rest = match current.map(str::trim).unwrap_or("true") {
        "false" => return None,
        "true" => vec!["+*"],
        list => {
            let patterns: Vec<&str> = list.split(',').map(str::trim).collect();
            if patterns.len() >= forbidden.len() && forbidden.iter().zip(&patterns).all(|(ours, there)| ours == there) {
                return None;
            }
            patterns.into_iter().filter(|pattern| forbidden.iter().all(|ours| ours != pattern)).collect()
        }
    };
    Some(forbidden.iter().map(String::as_str).chain(rest).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_indices_are_forbidden_and_nothing_else_changes() {
        for (current, expected) in [
            (None, Some("-lh-hot*,-lh-own-*,+*")),
            (Some("true"), Some("-lh-hot*,-lh-own-*,+*")),
            (Some("false"), None),
            (Some("-lh-hot*,-lh-own-*,+*"), None),
            (Some("-lh-hot*, -lh-own-*, -secret*, +*"), None),
            (Some("-secret*,+*"), Some("-lh-hot*,-lh-own-*,-secret*,+*")),
            (Some("+lh-*,-lh-own-*,+*"), Some("-lh-hot*,-lh-own-*,+lh-*,+*")),
        ] {
            let wanted = wanted(current);
            assert_eq!(wanted.as_deref(), expected, "{current:?}");
            assert!(wanted.is_none_or(|wanted| super::wanted(Some(&wanted)).is_none()), "{current:?}: once is enough");
        }
    }
}
