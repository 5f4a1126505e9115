//! How far what was sent to a client has come: asked for before anything is sent again.

use postroad_base::ConnectionId;
use postroad_broker::api::Event;

use super::Shard;

impl Shard {
    /// Answers `Effect::Probe`. A question that the kernel does not answer is asked again by the broker.
    pub(super) fn tell_road(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        match connection.road() {
            Ok(road) => self.handle(Event::Road { connection: id, road }),
            Err(error) => {
                tracing::debug!(shard = self.id.0, connection = id.0, %error, "the kernel does not tell of the road");
            }
        }
    }
}
