//! The Redis protocol, versions 2 and 3: commands in, replies out.

mod repeat;
mod reply;
mod request;

pub use repeat::repeat;
pub use reply::{Protocol, ReplyWriter};
pub use request::{Limits, Parsed, ProtocolError, encode, parse};
