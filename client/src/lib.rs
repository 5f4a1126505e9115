//! The SDK: reconnect, heartbeat, de-duplication, a persistent receive queue [RCV]. Nothing of it is built yet; the crate
//! holds its place in the house, so that the dependency test already guards its edges.
