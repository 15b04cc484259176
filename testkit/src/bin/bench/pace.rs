//! How fast the machine is: the same small work, timed four times a second.
//!
//! Virtual cores share real ones with strangers, and no counter of this machine shows how much of them is left.
//! Where two figures differ and their pace does not, it was not the cores. It tells nothing of memory and caches,
//! which this work does not need.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const APART: Duration = Duration::from_millis(250);
/// Of so many tries the fastest counts: the others may have been interrupted.
const TRIES: usize = 3;
/// Multiplications of one try: some 0.3 ms, 0.4 % of a core for all of them.
const STEPS: u64 = 200_000;

static NANOS: AtomicU64 = AtomicU64::new(0);
static SAMPLES: AtomicU64 = AtomicU64::new(0);

/// What the work took, in all samples until now, or of a window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    nanos: u64,
    samples: u64,
}

/// Begins to take samples, in a thread of its own until the process ends.
pub(crate) fn watch() {
    thread::spawn(|| {
        loop {
            thread::sleep(APART);
            let fastest = (0..TRIES).map(|_| once()).min().unwrap_or_default();
            NANOS.fetch_add(fastest.as_nanos() as u64, Ordering::Relaxed);
            SAMPLES.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Until now.
pub(crate) fn read() -> Pace {
    Pace { nanos: NANOS.load(Ordering::Relaxed), samples: SAMPLES.load(Ordering::Relaxed) }
}

impl Pace {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { nanos: self.nanos - earlier.nanos, samples: self.samples - earlier.samples }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { nanos: self.nanos + other.nanos, samples: self.samples + other.samples }
    }

    /// Microseconds for the work, on average; none without a sample.
    pub(crate) fn micros(self) -> Option<f64> {
        (self.samples > 0).then(|| self.nanos as f64 / 1e3 / self.samples as f64)
    }
}

fn once() -> Duration {
    let begun = Instant::now();
    let mut x = 1_u64;
    for step in 0..STEPS {
        // Each step needs the one before it.
        x = (x ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (x >> 29);
    }
    black_box(x);
    begun.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_the_mean_of_its_own_samples() {
        let first = Pace { nanos: 1_000_000, samples: 4 };
        let window = Pace { nanos: 1_600_000, samples: 6 }.since(first);
        assert_eq!(window.micros(), Some(300.0));
        assert_eq!(window.plus(first).micros(), Some(1_600.0 / 6.0));
        assert_eq!(first.since(first).micros(), None);
        assert!(once() > Duration::ZERO);
    }
}
