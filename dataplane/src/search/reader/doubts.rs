//! What an answer that only the index can give may have missed.

use crate::search::coverage::Why;
use crate::search::reader::{QUEUE_UNKNOWN, QUEUED};
use crate::search::waiting::Waits;

/// Said when a part of the index was too slow or failed.
pub(in crate::search) const INDEX_PARTIAL: &str =
    "a part of the search index didn't answer in time; ask again, or narrow the time range";
/// Said of a prefix that stands for too many words to look at where they stand.
pub(in crate::search) const INDEX_LOOSE: &str = "a `*` stands for so many words that the words before it were looked for \
     anywhere in an event; put more letters before it";
/// Said while accepted events wait to be indexed.
const INDEX_BEHIND: &str = "some stored events are not indexed yet; GET /api/logs lists them";
/// Said of a time range that begins before the index does.
const INDEX_YOUNGER: &str = "the time range begins before the index does; GET /api/logs lists older events";
/// Said of a time range from which the index has lost something.
const INDEX_LACKS: &str = "the index lacks events of this time range that it had; GET /api/logs lists them";
/// Said of a time range in which the index has parts of some events only.
const INDEX_REDUCED: &str =
    "of some events in this time range the index holds the message only; GET /api/logs lists them";
/// Said of a comparison over a time range that begins before numbers and times could be compared.
const INDEX_UNORDERED: &str = "numbers and times of older events in this time range can't be compared: they were indexed before \
     LoggerHub could; narrow the time range";
/// Said where it could not be found out what the index holds.
pub(in crate::search) const INDEX_UNKNOWN: &str =
    "what the index holds of this time range could not be found out; ask again";

/// What an answer may have missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubts {
    /// A part of the index did not answer.
    pub(super) partial: bool,
    /// What waits in the queue.
    pub(super) waits: Waits,
    /// Stored events wait to be indexed.
    pub(super) behind: bool,
    /// Why the index does not hold everything; an error if that could not be found out.
    pub(super) lack: Result<Option<Why>, ()>,
    /// A prefix was taken for more than it is.
    pub(super) loose: bool,
}

/// What an answer of the index alone may have missed, the most urgent first.
pub(super) fn missing(doubts: Doubts) -> Option<&'static str> {
    let Doubts { partial, waits, behind, lack, loose } = doubts;
    match lack {
        _ if partial => Some(INDEX_PARTIAL),
        _ if waits == Waits::Something => Some(QUEUED),
        _ if behind => Some(INDEX_BEHIND),
        Ok(Some(Why::Lost)) => Some(INDEX_LACKS),
        Ok(Some(Why::Older)) => Some(INDEX_YOUNGER),
        Ok(Some(Why::Parts)) => Some(INDEX_REDUCED),
        Ok(Some(Why::Order)) => Some(INDEX_UNORDERED),
        Err(()) => Some(INDEX_UNKNOWN),
        Ok(None) if loose => Some(INDEX_LOOSE),
        Ok(None) if waits == Waits::Unknown => Some(QUEUE_UNKNOWN),
        Ok(None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_index_says_what_it_may_have_missed() {
        let sure = Doubts { partial: false, waits: Waits::Nothing, behind: false, lack: Ok(None), loose: false };
        let (queued, unsaid) = (Waits::Something, Waits::Unknown);
        for (doubts, notice) in [
            (sure, None),
            (Doubts { waits: unsaid, ..sure }, Some(QUEUE_UNKNOWN)),
            (Doubts { loose: true, waits: unsaid, ..sure }, Some(INDEX_LOOSE)),
            (Doubts { lack: Err(()), loose: true, ..sure }, Some(INDEX_UNKNOWN)),
            (Doubts { lack: Ok(Some(Why::Parts)), ..sure }, Some(INDEX_REDUCED)),
            (Doubts { lack: Ok(Some(Why::Order)), ..sure }, Some(INDEX_UNORDERED)),
            (Doubts { lack: Ok(Some(Why::Older)), ..sure }, Some(INDEX_YOUNGER)),
            (Doubts { lack: Ok(Some(Why::Lost)), ..sure }, Some(INDEX_LACKS)),
            (Doubts { behind: true, lack: Ok(Some(Why::Lost)), ..sure }, Some(INDEX_BEHIND)),
            (Doubts { waits: queued, behind: true, ..sure }, Some(QUEUED)),
            (Doubts { partial: true, waits: queued, behind: true, ..sure }, Some(INDEX_PARTIAL)),
        ] {
            assert_eq!(missing(doubts), notice, "{doubts:?}");
        }
    }
}
