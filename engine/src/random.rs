//! Numbers that nobody can guess, from the kernel.

/// Fills `bytes`.
///
/// # Panics
/// If the kernel gives none, which it does only before it has started up.
pub(crate) fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .expect("getrandom without flags waits until the kernel has entropy");
    }
}
