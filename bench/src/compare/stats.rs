//! How sure a median is: bootstrap intervals over rounds.

use flotilla_runtime::SplitMix64;

use crate::recorder::median;

/// Samples drawn for an interval.
const RESAMPLES: usize = 2_000;
/// Of an interval.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// The interval that holds the median with [`CONFIDENCE`], by the percentile bootstrap: medians of samples drawn from
/// `values`, with replacement. The same values give the same interval.
///
/// With fewer than six values it is their whole range, which holds the median in 94 of 100 cases with five of them, and in
/// fewer with fewer; with one value it is that value, and says nothing.
pub(crate) fn interval(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let mut random = SplitMix64::new(0x00b0_0757);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| median((0..values.len()).map(|_| values[random.below(values.len() as u64) as usize])))
        .collect();
    medians.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let at = |share: f64| medians[((RESAMPLES - 1) as f64 * share).round() as usize];
    (at(tail), at(1.0 - tail))
}

/// The range of `values` as a part of their median: 0 when all are the same.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    match values.is_empty() {
        true => 0.0,
        false => (most - least) / median(values.iter().copied()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve sums of uniform numbers: nearly normal, with this mean and a deviation of one.
    fn normal(random: &mut SplitMix64, mean: f64) -> f64 {
        let unit = |random: &mut SplitMix64| (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        mean + (0..12).map(|_| unit(random)).sum::<f64>() - 6.0
    }

    #[test]
    fn intervals_cover_the_truth_about_as_often_as_they_say() {
        let mut random = SplitMix64::new(7);
        let covers = (0..200)
            .filter(|_| {
                let values: Vec<f64> = (0..15).map(|_| normal(&mut random, 10.0)).collect();
                let (low, high) = interval(&values);
                low <= 10.0 && 10.0 <= high
            })
            .count();
        assert!((175..=200).contains(&covers), "{covers} of 200 with 95 %");
    }

    #[test]
    fn few_values_give_their_range_and_none_give_nothing() {
        assert_eq!(interval(&[3.0, 1.0, 2.0]), (1.0, 3.0));
        assert_eq!(interval(&[2.5]), (2.5, 2.5));
        assert!(interval(&[]).0.is_nan());
        assert_eq!(spread(&[2.0, 1.0, 4.0]), 1.5);
        assert_eq!(spread(&[]), 0.0);
    }

    #[test]
    fn more_values_make_it_narrower() {
        let mut random = SplitMix64::new(3);
        let mut width = |count: usize| {
            let values: Vec<f64> = (0..count).map(|_| normal(&mut random, 0.0)).collect();
            let (low, high) = interval(&values);
            high - low
        };
        assert!(width(400) < width(10) / 2.0);
    }
}
