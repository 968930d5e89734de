//! What the allocator is told.

#![allow(unsafe_code)]

/// What is freed stays with the process, for what comes next; to be called before there are other threads. The allocator gives pages
/// back to the kernel 10 ms after they were freed, and in one go: after a shard of 256 MiB had gone, cores stood still for up to 80 ms in
/// `madvise`.
pub(super) fn keep_what_is_freed() {
    /// `mi_option_purge_delay`, which the crate doesn't name: milliseconds, or -1 for never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: it isn't thread-safe, and the node's threads haven't been started. The option is one of the allocator's.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
