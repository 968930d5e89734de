//! Frames of commands, and of the answers to them, that leave for other nodes with the turn.
//!
//! What goes to one core of another node shares a frame, which arrives whole or not at all. So a frame ends where it is long
//! enough: one that the link has no room for takes few others with it. What is longer than any frame isn't put into one:
//! whoever waits for it must be told so instead.

use super::channel;
use super::remote::Message;
use crate::resp::Protocol;
use flotilla_runtime::{Effect, Effects, PeerId};
use std::collections::BTreeMap;

/// A frame with something in it takes no more than this.
const FRAME_BYTES: usize = 1 << 20;
/// The channel, before the first item.
const FRAME_HEADER_BYTES: usize = 1;
/// kind, protocol, two zero bytes, length, token.
pub(super) const ITEM_HEADER_BYTES: usize = 16;

/// What leaves for the peers this turn.
#[derive(Debug)]
pub(super) struct PeerFrames {
    /// One for each peer that gets anything.
    open: BTreeMap<PeerId, Vec<u8>>,
    /// Those before them that are long enough, in the order in which they came to be.
    ended: Vec<(PeerId, Vec<u8>)>,
    frame_bytes: usize,
    item_bytes_max: usize,
}

impl PeerFrames {
    /// `link_bytes_max`: no link takes a longer frame.
    pub(super) fn new(link_bytes_max: usize) -> Self {
        // What follows a length of 32 bits, too.
        let link_bytes_max = link_bytes_max.min(u32::MAX as usize);
        Self {
            open: BTreeMap::new(),
            ended: Vec::new(),
            frame_bytes: FRAME_BYTES.min(link_bytes_max),
            item_bytes_max: link_bytes_max.saturating_sub(FRAME_HEADER_BYTES + ITEM_HEADER_BYTES),
        }
    }

    /// The longest command or reply that can be put.
    pub(super) fn item_bytes_max(&self) -> usize {
        self.item_bytes_max
    }

    /// Puts a command or an answer, of at most [`Self::item_bytes_max`], behind those that leave for the same peer.
    pub(super) fn put(&mut self, to: PeerId, kind: u8, protocol: Protocol, token: u64, bytes: &[u8]) {
        assert!(bytes.len() <= self.item_bytes_max, "whoever waits for what is too long is told so");
        let frame = self.open.entry(to).or_insert_with(|| vec![channel::COMMAND]);
        let is_begun = frame.len() > FRAME_HEADER_BYTES;
        if is_begun && frame.len() + ITEM_HEADER_BYTES + bytes.len() > self.frame_bytes {
            self.ended.push((to, std::mem::replace(frame, vec![channel::COMMAND])));
        }
        frame.extend_from_slice(&[kind, protocol.number(), 0, 0]);
        let length = u32::try_from(bytes.len()).expect("bounded by a length of 32 bits");
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&token.to_le_bytes());
        frame.extend_from_slice(bytes);
    }

    /// The turn ends.
    pub(super) fn flush(&mut self, out: &mut Effects<Message>) {
        // An ended frame is older than the open one of its peer.
        let open = std::mem::take(&mut self.open);
        for (to, frame) in self.ended.drain(..).chain(open) {
            out.push(Effect::Send { to, frame });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        // Where a frame was ended another one was begun.
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{items, sent};
    use super::*;
    use flotilla_runtime::{CoreId, NodeId};

    const KIND: u8 = 2;

    fn peer(node: u32) -> PeerId {
        PeerId { node: NodeId(node), core: CoreId(0) }
    }

    /// The tokens in each frame for that node.
    fn tokens(sent: &[(PeerId, Vec<u8>)], node: u32) -> Vec<Vec<u64>> {
        let frames = sent.iter().filter(|(to, _)| *to == peer(node));
        frames.map(|(_, frame)| items(frame).iter().map(|item| item.1).collect()).collect()
    }

    fn flushed(frames: &mut PeerFrames) -> Vec<(PeerId, Vec<u8>)> {
        let mut out = Effects::default();
        frames.flush(&mut out);
        assert!(frames.is_empty());
        sent(&out.drain().collect::<Vec<_>>())
    }

    #[test]
    fn what_leaves_for_one_peer_shares_frames_that_end_where_they_are_long_enough() {
        let mut frames = PeerFrames::new(200);
        for token in 1..=9 {
            frames.put(peer(2), KIND, Protocol::Resp2, token, &[b'x'; 50]);
            if token == 1 {
                frames.put(peer(3), KIND, Protocol::Resp3, 77, b"elsewhere");
            }
        }
        let sent = flushed(&mut frames);
        // Three of 66 bytes each, and never out of order.
        assert_eq!(tokens(&sent, 2), [[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
        assert_eq!(tokens(&sent, 3), [[77]]);
        assert!(flushed(&mut frames).is_empty(), "once is enough");
    }

    #[test]
    fn what_is_longer_than_others_share_has_a_frame_of_its_own() {
        let mut frames = PeerFrames::new(4 * FRAME_BYTES);
        let (short, long) = (vec![b's'; 100], vec![b'l'; frames.item_bytes_max()]);
        for (token, bytes) in [(1, &short), (2, &long), (3, &short), (4, &short)] {
            frames.put(peer(2), KIND, Protocol::Resp2, token, bytes);
        }
        let sent = flushed(&mut frames);
        let lengths: Vec<usize> = sent.iter().map(|(_, frame)| frame.len()).collect();
        assert_eq!(lengths, [117, 4 * FRAME_BYTES, 233]);
        assert!(items(&sent[1].1) == [(KIND, 2, long)]);
    }

    #[test]
    fn no_frame_is_longer_than_its_length_can_say() {
        assert_eq!(PeerFrames::new(usize::MAX).item_bytes_max(), u32::MAX as usize - 17);
    }
}
