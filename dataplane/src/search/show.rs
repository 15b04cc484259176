//! Where a page ends.

use query::cursor::Cursor;

/// The first `limit` of what was found, and the cursor after them if there was more.
pub fn cut<T>(mut found: Vec<T>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> (Vec<T>, Option<Cursor>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(cursor);
    (found, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::read::Document;
    use api::event::{Event, Item, Source};
    use uuid::Uuid;

    #[test]
    fn a_number_is_shown_with_all_its_digits() {
        let metadata =
            r#"{"neg":-9223372036854775808,"pi":3.14159265358979323846,"price":1.10,"wei":12345678901234567890123}"#;
        let line = format!(r#"{{"message":"m","metadata":{metadata},"n":1e2}}"#);
        let of_raw = stages::event(line.as_bytes(), 0).unwrap();
        let source = format!(
            r#"{{"id":"{id}","@timestamp":"t","accepted_at":"a","service":"s","level":"INFO","message":"m",
                "metadata":{metadata},"attributes":{{"n":1e2}},"batch_id":"{id}","leaves":["metadata.price=1.10"]}}"#,
            id = Uuid::nil()
        );
        let of_index: Document = serde_json::from_str(&source).unwrap();
        for (of_event, attributes) in [(of_raw.metadata, of_raw.attributes), (of_index.metadata, of_index.attributes)] {
            let item = Item {
                id: Uuid::nil(),
                timestamp: String::new(),
                accepted_at: String::new(),
                tenant: "acme".to_owned(),
                service: "s".to_owned(),
                application: None,
                level: "INFO".to_owned(),
                message: "m".to_owned(),
                language: None,
                batch_id: Uuid::nil(),
                raw_path: None,
                indexed: true,
                flags: Vec::new(),
            };
            let event = Event {
                item,
                full_log: None,
                metadata: of_event,
                attributes,
                source: Source::Index,
                complete: true,
                notice: None,
            };
            let shown = serde_json::to_string(&event).unwrap();
            let expected = format!(r#""metadata":{metadata},"attributes":{{"n":1e2}}"#);
            assert!(shown.contains(&expected), "{shown}");
        }
    }

    #[test]
    fn a_page_has_a_cursor_only_if_more_was_found() {
        let cursor = |time: &i64| Cursor { time: *time, event_id: Uuid::nil() };
        assert_eq!(cut(vec![3, 2, 1], 3, cursor), (vec![3, 2, 1], None));
        assert_eq!(cut(vec![3, 2, 1], 2, cursor), (vec![3, 2], Some(cursor(&2))));
        assert_eq!(cut(vec![], 2, cursor), (vec![], None));
    }
}
