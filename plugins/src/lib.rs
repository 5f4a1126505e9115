//! The Lua host: routing, dead-letter repair and custom frames [PLG]. Nothing of it is built yet; the crate holds its place
//! in the house, so that the dependency test already guards its edges.
