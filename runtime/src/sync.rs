//! The one place that knows whether threads are real or explored.
//!
//! The ring, the doorbell, the mesh and the node's control take their primitives from here: the standard library's, or,
//! built with `--cfg loom`, those of loom, which runs every interleaving that a memory model allows. Nothing else may
//! live here, and no module of this crate may reach around it: what it took from `std::sync` directly, loom would not
//! see (`sim/tests/house.rs` looks for that).

#[cfg(not(loom))]
pub(crate) use real::*;

#[cfg(not(loom))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    pub(crate) use std::sync::{Arc, Mutex};

    /// `std::cell::UnsafeCell` with loom's way of reaching inside.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
};
