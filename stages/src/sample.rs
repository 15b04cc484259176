//! Which events of a sample are kept. It follows from the event alone, so that every delivery of it, and
//! every processor, decides the same.

use crds::stage::Sample;
use sha2::{Digest, Sha256};

use crate::line::{Line, Path};
use crate::patterns::Problem;

/// A compiled [`Sample`].
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Two stages of one rate do not keep the same events.
    stage: String,
    one_in: u64,
    by: Option<Path>,
}

impl Sampler {
    pub(crate) fn compile(stage: &str, spec: &Sample) -> Result<Self, Problem> {
        let one_in = u64::try_from(spec.keep_one_in).ok().filter(|one_in| *one_in >= 1).ok_or_else(|| Problem {
            code: "invalid_sample",
            message: "sample.keepOneIn: give a number from 1 on".to_owned(),
        })?;
        Ok(Self { stage: stage.to_owned(), one_in, by: spec.by.as_deref().map(Path::new) })
    }

    /// Whether the event of this id is kept.
    pub(crate) fn keeps(&self, line: &Line, id: u128) -> bool {
        let mut hash = Sha256::new();
        hash.update(self.stage.as_bytes());
        hash.update([0]);
        match self.by.as_ref().and_then(|by| line.text(by)) {
            Some(value) => hash.update(value.as_bytes()),
            None => hash.update(id.to_be_bytes()),
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        u64::from_be_bytes(first).is_multiple_of(self.one_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(keep_one_in: i32, by: Option<&str>) -> Sampler {
        Sampler::compile("s", &Sample { keep_one_in, by: by.map(str::to_owned) }).unwrap()
    }

    #[test]
    fn about_one_in_so_many_is_kept_and_each_time_the_same() {
        let line = Line::read(b"{}").unwrap();
        for (one_in, from, to) in [(1, 10_000, 10_000), (10, 900, 1_100), (100, 60, 140)] {
            let kept = |sampler: &Sampler| (0..10_000).filter(|id| sampler.keeps(&line, *id)).collect::<Vec<_>>();
            let first = kept(&sampler(one_in, None));
            assert!((from..=to).contains(&first.len()), "one in {one_in}: {}", first.len());
            assert_eq!(first, kept(&sampler(one_in, None)));
        }
    }

    #[test]
    fn events_that_share_a_value_are_kept_together() {
        let sampler = sampler(4, Some("trace.id"));
        let mut kept = 0;
        for trace in 0..100 {
            let line = format!(r#"{{"trace":{{"id":"{trace}"}}}}"#);
            let line = Line::read(line.as_bytes()).unwrap();
            let decisions: Vec<bool> = (0..5).map(|id| sampler.keeps(&line, id)).collect();
            assert!(decisions.iter().all(|decision| *decision == decisions[0]), "{decisions:?}");
            kept += usize::from(decisions[0]);
        }
        assert!((10..=40).contains(&kept), "{kept}");
        let without = Line::read(b"{}").unwrap();
        assert!((0..100).any(|id| sampler.keeps(&without, id)), "what has no such field is decided by itself");
    }
}
