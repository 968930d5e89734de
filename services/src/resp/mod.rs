//! The Redis protocol, versions 2 and 3: commands in, replies out.

mod reply;
mod request;

pub use reply::{Protocol, ReplyWriter};
pub use request::{Limits, Parsed, ProtocolError, parse};
