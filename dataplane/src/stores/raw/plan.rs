//! Which frames hold which lines, and which of them are read by one request: values in, values out.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Place, RawAt};
use crate::stores::archive::Frames;

/// Most bytes of an object that one request reads, unless one frame is longer: some hundred frames, a few
/// milliseconds.
const REQUEST_BYTES: i64 = 4 * 1024 * 1024;
/// Most bytes between two frames that are read to save a request: what a store sends in the time that it needs to
/// begin an answer.
const GAP_BYTES: i64 = 128 * 1024;

/// A line that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    /// Its first byte, counted in the raw bytes of its place.
    pub(super) start: u64,
    /// The byte after its last.
    pub(super) end: u64,
    /// Which of those that were asked for it is.
    pub(super) index: usize,
}

/// Neighbouring frames that are decompressed into one piece: a frame, unless a line goes on in the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Which frames.
    pub(super) frames: Range<usize>,
    /// What is wanted of them, in the order of its bytes.
    pub(super) lines: Vec<Wanted>,
}

/// What one request reads of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Frames, those between stretches with them.
    pub(super) frames: Range<usize>,
    /// What is decompressed of them.
    pub(super) stretches: Vec<Stretch>,
}

/// Lines by their places, in the order of their bytes. What is in no place is left out.
pub(super) fn by_place(at: &[RawAt]) -> BTreeMap<Place, Vec<Wanted>> {
    let mut places: BTreeMap<Place, Vec<Wanted>> = BTreeMap::new();
    for (index, at) in at.iter().enumerate() {
        let (Some(place), Ok(start), Ok(length)) = (at.place, u64::try_from(at.start), u64::try_from(at.length)) else {
            continue;
        };
        let Some(end) = start.checked_add(length) else { continue };
        places.entry(place).or_default().push(Wanted { start, end, index });
    }
    places.values_mut().for_each(|lines| lines.sort_unstable());
    places
}

/// What is read of an object for these lines, which are in order. What its frames don't hold is left out.
pub(super) fn runs(frames: &Frames, lines: Vec<Wanted>) -> Vec<Run> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for line in lines {
        let Some(span) = frames.span(line.start, line.end - line.start) else { continue };
        match stretches.last_mut() {
            Some(last) if span.start < last.frames.end => {
                last.frames.end = last.frames.end.max(span.end);
                last.lines.push(line);
            }
            _ => stretches.push(Stretch { frames: span, lines: vec![line] }),
        }
    }
    let mut runs: Vec<Run> = Vec::new();
    for stretch in stretches {
        let (first, last) = (frames.starts[stretch.frames.start], frames.starts[stretch.frames.end]);
        let joins = |run: &&mut Run| {
            first - frames.starts[run.frames.end] <= GAP_BYTES
                && last - frames.starts[run.frames.start] <= REQUEST_BYTES
        };
        match runs.last_mut().filter(joins) {
            Some(run) => {
                run.frames.end = stretch.frames.end;
                run.stretches.push(stretch);
            }
            None => runs.push(Run { frames: stretch.frames.clone(), stretches: vec![stretch] }),
        }
    }
    runs
}

/// Things in their order, cut so that each portion has at most so many bytes, or one thing that has more.
pub fn portions<T>(things: impl IntoIterator<Item = T>, most: u64, bytes: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let (mut portions, mut held): (Vec<Vec<T>>, u64) = (Vec::new(), 0);
    for thing in things {
        let size = bytes(&thing);
        match portions.last_mut() {
            Some(portion) if held + size <= most => {
                held += size;
                portion.push(thing);
            }
            _ => {
                held = size;
                portions.push(vec![thing]);
            }
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: Option<Place>, start: i64, length: i64) -> RawAt {
        RawAt { place, start, length }
    }

    #[test]
    fn lines_are_grouped_by_place_in_the_order_of_their_bytes() {
        let (spool, object) = (Some(Place::Spool(7)), Some(Place::Object(7)));
        let asked = [
            at(object, 50, 10),
            at(spool, 5, 5),
            at(object, 0, 10),
            at(None, 0, 10),
            at(spool, -1, 5),
            at(spool, 0, -5),
            at(spool, 0, 5),
        ];
        let wanted = |start, end, index| Wanted { start, end, index };
        let places: Vec<_> = by_place(&asked).into_iter().collect();
        assert_eq!(
            places,
            [
                (Place::Spool(7), vec![wanted(0, 5, 6), wanted(5, 10, 1)]),
                (Place::Object(7), vec![wanted(0, 10, 2), wanted(50, 60, 0)]),
            ]
        );
    }

    /// Frames of 100 raw bytes that have so many bytes each in their object.
    fn frames(sizes: &[i64]) -> Frames {
        let mut frames = Frames { raw_starts: vec![0], starts: vec![0] };
        for (at, size) in sizes.iter().enumerate() {
            frames.raw_starts.push(100 * (at as i64 + 1));
            frames.starts.push(frames.starts[at] + size);
        }
        frames
    }

    #[test]
    fn neighbouring_frames_are_read_by_one_request_and_decompressed_once() {
        const KB: i64 = 1024;
        let ends = |frames: &Range<usize>| (frames.start, frames.end);
        for (name, sizes, lines, expected) in [
            ("nothing", vec![KB], vec![], vec![]),
            ("one frame", vec![KB, KB], vec![(0, 10), (20, 30), (90, 100)], vec![((0, 1), vec![(0, 1)])]),
            ("neighbours", vec![KB, KB], vec![(0, 10), (110, 120)], vec![((0, 2), vec![(0, 1), (1, 2)])]),
            ("a line in two frames", vec![KB; 4], vec![(50, 150), (160, 170)], vec![((0, 2), vec![(0, 2)])]),
            ("a small gap", vec![KB; 9], vec![(0, 10), (810, 820)], vec![((0, 9), vec![(0, 1), (8, 9)])]),
            (
                "a large gap",
                vec![KB, 129 * KB, KB],
                vec![(0, 10), (210, 220)],
                vec![((0, 1), vec![(0, 1)]), ((2, 3), vec![(2, 3)])],
            ),
            (
                "more than a request",
                vec![3 * KB * KB; 2],
                vec![(0, 10), (110, 120)],
                vec![((0, 1), vec![(0, 1)]), ((1, 2), vec![(1, 2)])],
            ),
            ("a frame that is more than a request", vec![9 * KB * KB], vec![(0, 10)], vec![((0, 1), vec![(0, 1)])]),
            ("beyond the end", vec![KB], vec![(0, 10), (90, 110), (500, 510)], vec![((0, 1), vec![(0, 1)])]),
        ] {
            let lines = lines.into_iter().enumerate().map(|(index, (start, end))| Wanted { start, end, index });
            let found = runs(&frames(&sizes), lines.collect());
            let found: Vec<_> = found
                .iter()
                .map(|run| {
                    (ends(&run.frames), run.stretches.iter().map(|stretch| ends(&stretch.frames)).collect::<Vec<_>>())
                })
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_portion_has_so_many_bytes_or_one_thing() {
        for (sizes, expected) in [
            (vec![], vec![]),
            (vec![4, 4, 4, 9, 20, 1], vec![vec![4, 4], vec![4], vec![9], vec![20], vec![1]]),
            (vec![10, 0, 0], vec![vec![10, 0, 0]]),
        ] {
            assert_eq!(portions(sizes.clone(), 10, |size| *size), expected, "{sizes:?}");
        }
    }
}
