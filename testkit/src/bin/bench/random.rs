//! Numbers that look random and are the same in every run, so that every run sends the same lines.

use std::sync::atomic::{AtomicU64, Ordering};

/// SplitMix64: a counter and a mixer. Shared by all connections.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    /// A sequence of its own for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// In 0..1.
    pub(crate) fn fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// Picks places 0..count by Zipf's law: the place r is picked in proportion to 1 / (r + 1)^exponent.
#[derive(Debug)]
pub(crate) struct Zipf {
    /// Sums of the weights up to each place, the last being 1.
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(count: usize, exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let sums = weights.iter().map(|weight| {
            sum += weight / total;
            sum
        });
        Self { sums: sums.collect() }
    }

    pub(crate) fn pick(&self, random: &Random) -> usize {
        let at = random.fraction();
        self.sums.partition_point(|sum| *sum <= at).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_the_same_each_time() {
        let (a, b) = (Random::new(7), Random::new(7));
        assert_eq!((a.next(), a.next()), (b.next(), b.next()));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&a.fraction())));
    }

    #[test]
    fn the_first_place_is_picked_most() {
        let (zipf, random) = (Zipf::new(1000, 1.1), Random::new(1));
        let mut counts = vec![0; 1000];
        (0..100_000).for_each(|_| counts[zipf.pick(&random)] += 1);
        assert!(counts[0] > counts[1] && counts[1] > counts[9] && counts[9] > counts[500]);
        // 1 / sum of r^-1.1 for r up to 1000 is 0.18.
        assert!((16_000..20_000).contains(&counts[0]), "{}", counts[0]);
    }
}
