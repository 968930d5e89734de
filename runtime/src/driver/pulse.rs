//! Whether all cores turn, for whoever restarts a node that doesn't.
//!
//! A core counts at its [post](crate::control::Post) each time that it is about to wait, four times a second at least. Who compares two
//! readings knows whether it turned between them.

use super::start::Reload;
use crate::control::{Control, ENDED};
use crate::sync::Arc;

/// Compares how often the cores have come round with how often they had when it was asked before.
pub struct Pulse {
    control: Arc<Control<Reload>>,
    before: Vec<usize>,
}

impl Pulse {
    pub(super) fn new(control: &Arc<Control<Reload>>) -> Self {
        Self { before: control.beats(), control: Arc::clone(control) }
    }

    /// The cores that haven't turned since the last call, ascending.
    pub fn stuck(&mut self) -> Vec<u16> {
        let now = self.control.beats();
        let pairs = (0..).zip(now.iter().zip(&self.before));
        let stuck = pairs.filter(|(_, (now, before))| now == before && **now != ENDED);
        let stuck = stuck.map(|(core, _)| core).collect();
        self.before = now;
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Post;

    #[test]
    fn a_core_that_doesn_t_come_round_is_named() {
        let control = Arc::new(Control::new());
        assert!(Pulse::new(&control).stuck().is_empty(), "there are no cores yet");
        let posts = [(); 3].map(|()| Arc::new(Post::new()));
        control.appoint(posts.to_vec());
        let mut pulse = Pulse::new(&control);
        assert_eq!(pulse.stuck(), [0, 1, 2]);
        [0, 2].into_iter().for_each(|core: usize| posts[core].beat());
        assert_eq!(pulse.stuck(), [1]);
        assert_eq!(pulse.stuck(), [0, 1, 2], "since the last time");
        posts[0].end();
        posts[1].beat();
        assert_eq!(pulse.stuck(), [2]);
        posts[2].beat();
        assert_eq!(pulse.stuck(), [1], "who has ended isn't stuck");
    }
}
