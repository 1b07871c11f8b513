//! Who may do what: the questions that a protocol asks before it acts for a user.

/// One user's rights in one vhost. Answers must be cheap: they are asked for each operation, though a publisher
/// asks once per exchange.
pub trait Access: Send + Sync {
    /// The user's name.
    fn user(&self) -> &str;

    /// May create and delete the queue or exchange of that name.
    fn configure(&self, name: &str) -> bool;

    /// May publish to that exchange, or bind to that queue. The default exchange is asked for as `amq.default`.
    fn write(&self, name: &str) -> bool;

    /// May consume from that queue, or bind from that exchange.
    fn read(&self, name: &str) -> bool;

    /// May publish with that routing key to that topic exchange. Asked after [`Access::write`] agreed.
    fn write_topic(&self, exchange: &str, key: &[u8]) -> bool;

    /// May bind with that pattern to that topic exchange. Asked after [`Access::read`] agreed.
    fn read_topic(&self, exchange: &str, pattern: &[u8]) -> bool;

    /// May get messages with that routing key from that topic exchange. Asked for each delivery, and only when
    /// [`Access::checks_deliveries`] says so.
    fn receive_topic(&self, _exchange: &str, _key: &[u8]) -> bool {
        true
    }

    /// Permissions are on what is delivered, as in Mosquitto's ACL files, and not only on what is bound.
    fn checks_deliveries(&self) -> bool {
        false
    }

    /// Every question above is answered with yes, so none needs asking.
    fn unrestricted(&self) -> bool;

    /// May publish messages that name another user in their `user-id` property.
    fn impersonator(&self) -> bool;
}
