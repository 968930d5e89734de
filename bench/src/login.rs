//! Who the load generator is to a target that has users.

use crate::resp;
use std::sync::OnceLock;

/// The environment variable that the password is taken from. A command line is for everybody to see.
const PASSWORD: &str = "FLOTILLA_PASSWORD";

/// Set before the first connection is made, if at all.
static GREETING: OnceLock<Vec<u8>> = OnceLock::new();

/// From here on every connection says who it is, if there is a user or a password.
pub(crate) fn log_in(user: Option<&str>) {
    let password = std::env::var_os(PASSWORD).map(std::ffi::OsString::into_encoded_bytes);
    let mut greeting = Vec::new();
    match (user, &password) {
        (None, None) => return,
        (None, Some(password)) => resp::encode(&mut greeting, &[b"AUTH", password]),
        (Some(user), password) => {
            let password = password.as_deref().unwrap_or_default();
            resp::encode(&mut greeting, &[b"AUTH", user.as_bytes(), password]);
        }
    }
    // There is one target, and it is asked for once.
    let _ = GREETING.set(greeting);
}

/// What a connection sends before anything else; perhaps nothing. One reply comes back to it.
pub(crate) fn greeting() -> &'static [u8] {
    GREETING.get().map_or(&[], Vec::as_slice)
}
