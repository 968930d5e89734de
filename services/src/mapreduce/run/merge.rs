//! Many sorted segments as one: a tree of losers, so that a step costs one comparison for each level.

use super::{ReadAt, SegmentReader};
use crate::mapreduce::MrError;
use std::cmp::Ordering;

/// The pairs of many segments in the order of their keys; equal keys in the order of the segments.
#[derive(Debug)]
pub struct Merge<R> {
    sources: Vec<SegmentReader<R>>,
    /// Whether a source still has a pair.
    alive: Vec<bool>,
    /// Place 0: the winner. Others: who lost there.
    tree: Vec<u32>,
}

impl<R: ReadAt> Merge<R> {
    /// Begins with the first pair of each.
    ///
    /// # Errors
    /// As [`SegmentReader::advance`].
    pub fn new(mut sources: Vec<SegmentReader<R>>) -> Result<Self, MrError> {
        let mut alive = Vec::with_capacity(sources.len());
        for source in &mut sources {
            alive.push(source.advance()?);
        }
        let mut merge = Self { tree: vec![0; sources.len().max(1)], sources, alive };
        if !merge.sources.is_empty() {
            merge.tree[0] = merge.build(1);
        }
        Ok(merge)
    }

    /// Plays the games below a place; leaves the losers, returns the winner.
    fn build(&mut self, place: usize) -> u32 {
        let count = self.sources.len();
        if place >= count {
            return u32::try_from(place - count).expect("sources are few");
        }
        let (left, right) = (self.build(2 * place), self.build(2 * place + 1));
        let (winner, loser) = if self.beats(left, right) { (left, right) } else { (right, left) };
        self.tree[place] = loser;
        winner
    }

    #[inline]
    fn beats(&self, a: u32, b: u32) -> bool {
        let (one, other) = (a as usize, b as usize);
        if !(self.alive[one] && self.alive[other]) {
            return self.alive[one] || !self.alive[other] && a < b;
        }
        let (left, right) = (&self.sources[one], &self.sources[other]);
        match left.prefix().cmp(&right.prefix()) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => match left.key().cmp(right.key()) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => a < b,
            },
        }
    }

    /// The segment that is at the least pair, if there is one.
    #[inline]
    pub fn least(&self) -> Option<&SegmentReader<R>> {
        let winner = self.tree[0] as usize;
        self.alive.get(winner).is_some_and(|alive| *alive).then(|| &self.sources[winner])
    }

    /// Goes to the next pair.
    ///
    /// # Errors
    /// As [`SegmentReader::advance`].
    #[inline]
    pub fn advance(&mut self) -> Result<(), MrError> {
        let mut winner = self.tree[0];
        let source = winner as usize;
        self.alive[source] = self.sources[source].advance()?;
        let mut place = (source + self.sources.len()) / 2;
        while place > 0 {
            let held = self.tree[place];
            if self.beats(held, winner) {
                self.tree[place] = winner;
                winner = held;
            }
            place /= 2;
        }
        self.tree[0] = winner;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RunWriter, Segment};
    use super::*;

    #[test]
    fn any_number_of_segments_come_out_sorted_and_stable() {
        for count in [0_usize, 1, 2, 3, 5, 8, 13] {
            let mut expected = Vec::new();
            let mut files: Vec<(Vec<u8>, Vec<Segment>)> = Vec::new();
            for source in 0..count {
                let mut keys: Vec<Vec<u8>> = (0..(source * 37) % 50)
                    .map(|n| format!("long prefix {:02}", n * 7 % 20).into_bytes())
                    .collect();
                keys.sort();
                let mut writer = RunWriter::new(Vec::new()).unwrap();
                writer.begin(0);
                for key in &keys {
                    writer.push(key, &[source as u8]).unwrap();
                    expected.push((key.clone(), source as u8));
                }
                files.push(writer.finish().unwrap());
            }
            expected.sort();
            let sources = files.iter().flat_map(|(file, segments)| {
                segments.iter().map(|it| SegmentReader::new(&file[..], "test", *it).unwrap())
            });
            let mut merge = Merge::new(sources.collect()).unwrap();
            let mut found = Vec::new();
            while let Some(least) = merge.least() {
                found.push((least.key().to_vec(), least.value()[0]));
                merge.advance().unwrap();
            }
            assert_eq!(found, expected, "{count} segments");
        }
    }
}
