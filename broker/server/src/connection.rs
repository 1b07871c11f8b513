//! One connection's task: moves bytes between the socket and the engine, and keeps its timers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use portolan_core::engine::{Account, Ask, Credentials, Engine};
use portolan_core::store::{Index, Journal, Waiter};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::admission::{Admission, Guest};
use crate::alarms::AlarmBoard;
use crate::auth::{self, Authenticator};
use crate::time::now_ms;
use crate::wake::Wake;

/// Bytes read at once. One buffer serves all connections of a thread: what a read leaves unused is kept by its
/// connection.
const READ: usize = 64 * 1024;
/// Time that a client gets for its goodbye after ours.
const GOODBYE: Duration = Duration::from_secs(3);
/// Time that a closing connection gets to take what is still in the outbox.
const LAST_WORDS: Duration = Duration::from_secs(5);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// What connections share with the rest of the process.
pub struct Surroundings {
    /// Lets clients in.
    pub authenticator: Arc<Authenticator>,
    /// Counts those who are in.
    pub admission: Arc<Admission>,
    /// Says when publishers must wait.
    pub alarms: Arc<AlarmBoard>,
    /// Says when it has caught up.
    pub journal: Arc<dyn Journal>,
    /// Time for a connection to log in and open its vhost.
    pub handshake_timeout: Duration,
    /// Set when the broker stops: the reason that clients are told.
    pub stop: watch::Receiver<Option<Arc<str>>>,
}

/// Why input is not being read.
enum Paused {
    No,
    /// Publishers must wait for memory or disk.
    Alarm(u64),
    /// The journal must catch up.
    Journal(Arc<CaughtUp>),
    /// The engine says when.
    Engine,
}

/// Tells a connection that the journal is durable far enough.
struct CaughtUp {
    done: AtomicBool,
    woken: Arc<Wake>,
}

impl Waiter for CaughtUp {
    fn durable(&self, _: Index) {
        self.done.store(true, Ordering::Release);
        self.woken.call();
    }

    fn failed(&self) {
        // Nothing will be confirmed; the client's reading side is told by the engine's own waiter.
        self.durable(0);
    }
}

/// A connection on its way through life.
pub struct Task<E> {
    engine: E,
    stream: Arc<OwnedWriteHalf>,
    reader: OwnedReadHalf,
    peer: SocketAddr,
    woken: Arc<Wake>,
    around: Arc<Surroundings>,
    /// Input that the engine has not used yet.
    rest: Vec<u8>,
    paused: Paused,
    /// It was paused: what the engine has not used waits for it, whether more comes or not.
    again: bool,
    /// The last read filled much of the buffer: there is probably more.
    read_much: bool,
    /// The outbox holds more than the socket takes.
    blocked: bool,
    /// The client has said all it will say.
    ended: bool,
    /// When the engine wants to be called.
    tick_at: Instant,
    /// When the connection ends whatever happens.
    ends_at: Option<Instant>,
}

/// What to do after something happened.
enum Next {
    Go,
    Login(Credentials),
    Close(Duration),
}

impl<E: Engine> Task<E> {
    /// A connection that has just been accepted. The engine's outbox writes to `stream` and wakes through `woken`.
    pub fn new(
        engine: E,
        stream: Arc<OwnedWriteHalf>,
        reader: OwnedReadHalf,
        peer: SocketAddr,
        woken: Arc<Wake>,
        around: Arc<Surroundings>,
    ) -> Self {
        let ends_at = Some(Instant::now() + around.handshake_timeout);
        Self {
            engine,
            stream,
            reader,
            peer,
            woken,
            around,
            rest: Vec::new(),
            paused: Paused::No,
            again: false,
            read_much: false,
            blocked: false,
            ended: false,
            tick_at: Instant::now() + Duration::from_secs(1),
            ends_at,
        }
    }

    /// Lives until client or broker ends it.
    ///
    /// By reference, so that the task is in memory once: a future that takes it by value has a place for it twice.
    pub async fn run(&mut self) {
        let after = self.live().await;
        Box::pin(self.last_words(after)).await;
        self.engine.end(now_ms());
    }

    async fn live(&mut self) -> Duration {
        let (woken, stream, around) = (Arc::clone(&self.woken), Arc::clone(&self.stream), Arc::clone(&self.around));
        // These wait across turns of the loop: to begin anew costs more than to look again.
        let mut timer = pin!(sleep_until(self.next_timer()));
        let mut told = around.stop.clone();
        let mut stop = pin!(told.changed());
        let mut stopping = false;
        // What is rarely waited for is in a box, or each connection would keep a place for it.
        loop {
            let (reading, blocked, due) = (self.may_read(), self.blocked, self.next_timer());
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            let (alarmed, seen) = (matches!(self.paused, Paused::Alarm(_)), self.alarm_seen());
            let next = tokio::select! {
                biased;
                next = poll_fn(|cx| self.poll_read(cx)), if reading => next,
                () = woken.called() => self.on_woken(),
                _ = async { Box::pin(stream.writable()).await }, if blocked => self.on_writable(),
                () = &mut timer => self.on_timer(),
                _ = async { Box::pin(around.alarms.changed(seen)).await }, if alarmed => self.on_alarm(),
                _ = &mut stop, if !stopping => {
                    stopping = true;
                    let reason = around.stop.borrow().clone().unwrap_or_default();
                    let ask = self.engine.goodbye(&reason, now_ms());
                    self.follow(ask)
                }
            };
            let next = match next {
                Next::Login(credentials) => {
                    // In a box, or each connection would keep a place for this for as long as it lives.
                    let ask = Box::pin(self.login(credentials)).await;
                    self.follow(ask)
                }
                next => next,
            };
            match next {
                Next::Go | Next::Login(_) => {}
                Next::Close(after) => return after,
            }
            if std::mem::take(&mut self.read_much) {
                // Whoever sends without a pause takes turns with the others, or consumers would get a window's
                // worth while a publisher gets all that the kernel holds.
                tokio::task::yield_now().await;
            }
        }
    }

    fn unpause(&mut self) {
        self.paused = Paused::No;
        self.again = true;
    }

    fn may_read(&self) -> bool {
        matches!(self.paused, Paused::No) && !self.ended && !(self.blocked && self.engine.congested())
    }

    fn alarm_seen(&self) -> u64 {
        if let Paused::Alarm(seen) = self.paused { seen } else { 0 }
    }

    fn next_timer(&self) -> Instant {
        self.ends_at.map_or(self.tick_at, |end| end.min(self.tick_at))
    }

    /// Reads what is there and lets the engine have it.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if std::mem::take(&mut self.again) && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(self.handle(&rest));
        }
        BUFFER.with_borrow_mut(|buffer| {
            let kept = self.rest.len();
            let wanted = (kept + READ / 2).max(READ);
            if buffer.len() < wanted {
                buffer.resize(wanted, 0);
            }
            let mut free = ReadBuf::new(&mut buffer[kept..]);
            match Pin::new(&mut self.reader).poll_read(cx, &mut free) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(self.lost(&error)),
                Poll::Ready(Ok(())) => {}
            }
            let read = free.filled().len();
            self.read_much = read >= READ / 2;
            if read == 0 {
                return Poll::Ready(self.hung_up());
            }
            buffer[..kept].copy_from_slice(&self.rest);
            self.rest.clear();
            let next = self.handle(&buffer[..kept + read]);
            if wanted > READ {
                buffer.truncate(READ);
                buffer.shrink_to_fit();
            }
            Poll::Ready(next)
        })
    }

    /// Hands input to the engine until it uses no more of it, and keeps the rest.
    fn handle(&mut self, input: &[u8]) -> Next {
        let now = now_ms();
        let mut used = 0;
        loop {
            let (step, ask) = self.engine.receive(&input[used..], now);
            used += step;
            let more = matches!(ask, Ask::More) && step > 0 && used < input.len();
            if !more {
                let rest = &input[used..];
                if rest.len() > self.engine.most_input() + READ {
                    tracing::warn!(peer = %self.peer, "connection closed: too much input that makes no sense");
                    return Next::Close(Duration::ZERO);
                }
                if rest.is_empty() {
                    self.rest = Vec::new();
                } else {
                    self.rest.extend_from_slice(rest);
                }
                self.blocked = self.engine.flush();
                return self.follow(ask);
            }
        }
    }

    fn follow(&mut self, ask: Ask) -> Next {
        match ask {
            Ask::More => {}
            Ask::Login(credentials) => return Next::Login(credentials),
            Ask::Pause => self.paused = Paused::Alarm(self.around.alarms.alarms().generation()),
            Ask::Wait(index) => {
                let caught_up = Arc::new(CaughtUp { done: AtomicBool::new(false), woken: Arc::clone(&self.woken) });
                self.paused = Paused::Journal(Arc::clone(&caught_up));
                self.around.journal.wait_for(index, caught_up);
            }
            Ask::Hold => self.paused = Paused::Engine,
            Ask::Linger => {
                let end = Instant::now() + GOODBYE;
                self.ends_at = Some(self.ends_at.map_or(end, |known| known.min(end)));
                self.unpause();
            }
            Ask::Close { after } => return Next::Close(after),
        }
        if self.engine.is_open() && self.ends_at.is_some() && !self.engine.is_closing() {
            // The handshake is over.
            self.ends_at = None;
            self.tick_at = Instant::now();
        }
        Next::Go
    }

    async fn login(&mut self, credentials: Credentials) -> Ask {
        let authenticator = &self.around.authenticator;
        let user = match &credentials {
            Credentials::Password { user, password } => {
                let offered = auth::Credentials { mechanism: "PLAIN", user, password };
                authenticator.login(offered, self.peer).await.ok()
            }
            Credentials::Anonymous => authenticator.login_anonymous(self.peer).await.ok(),
            Credentials::Proven { user } => authenticator.login_proven(user, self.peer).await.ok(),
        };
        let anonymous = matches!(credentials, Credentials::Anonymous);
        let account = user
            .map(|user| Arc::new(Guest::new(user, anonymous, Arc::clone(&self.around.admission))) as Arc<dyn Account>);
        let ask = self.engine.login(account, now_ms());
        if !self.rest.is_empty() && matches!(ask, Ask::More) {
            // The client did not wait for our answers.
            let rest = std::mem::take(&mut self.rest);
            match self.handle(&rest) {
                Next::Close(after) => return Ask::Close { after },
                Next::Login(credentials) => return Ask::Login(credentials),
                Next::Go => return Ask::More,
            }
        }
        ask
    }

    fn on_woken(&mut self) -> Next {
        let caught_up = match &self.paused {
            Paused::Journal(waiter) => waiter.done.load(Ordering::Acquire),
            _ => false,
        };
        if caught_up {
            self.unpause();
        }
        self.on_writable()
    }

    fn on_writable(&mut self) -> Next {
        if matches!(self.paused, Paused::Engine) {
            // Unless it says so again.
            self.unpause();
        }
        self.blocked = self.engine.flush();
        let ask = self.engine.woken(now_ms());
        self.follow(ask)
    }

    fn on_timer(&mut self) -> Next {
        let now = Instant::now();
        if self.ends_at.is_some_and(|end| end <= now) {
            if !self.engine.is_open() {
                tracing::warn!(peer = %self.peer, "connection closed: no handshake in time");
            }
            return Next::Close(Duration::ZERO);
        }
        let now = now_ms();
        let (at, ask) = self.engine.tick(now, self.may_read());
        self.tick_at = Instant::now() + Duration::from_millis(at.saturating_sub(now).max(1));
        self.blocked = self.engine.flush();
        self.follow(ask)
    }

    fn on_alarm(&mut self) -> Next {
        self.unpause();
        let shortage = self.around.alarms.alarms().shortage();
        if shortage.any() {
            self.paused = Paused::Alarm(self.around.alarms.alarms().generation());
            return Next::Go;
        }
        let ask = self.engine.resume(now_ms());
        self.follow(ask)
    }

    fn hung_up(&mut self) -> Next {
        tracing::debug!(peer = %self.peer, "client hung up");
        self.ended = true;
        Next::Close(Duration::ZERO)
    }

    fn lost(&mut self, error: &io::Error) -> Next {
        tracing::debug!(peer = %self.peer, %error, "connection lost");
        self.ended = true;
        Next::Close(Duration::ZERO)
    }

    /// Sends what is still there, and waits for the client to hang up so that it has read all of it: closing with
    /// unread input would reset the connection and take our last words with it.
    async fn last_words(&mut self, after: Duration) {
        if self.ended {
            return;
        }
        let (engine, stream) = (&mut self.engine, &self.stream);
        let sent = timeout(LAST_WORDS, async move {
            while engine.flush() {
                if stream.writable().await.is_err() {
                    return;
                }
            }
        });
        // A client that takes nothing for so long gets nothing.
        let _ = sent.await;
        tokio::time::sleep(after).await;
        // Both fail only when the client is gone already.
        let _ = socket2::SockRef::from(AsRef::<TcpStream>::as_ref(&*self.stream)).shutdown(std::net::Shutdown::Write);
        let _ = timeout(Duration::from_millis(500), poll_fn(|cx| self.poll_discard(cx))).await;
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 4096];
        loop {
            let mut free = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.reader).poll_read(cx, &mut free) {
                Poll::Ready(Ok(())) if !free.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<'a, E: 'a, F: Future>(_: fn(&'a mut Task<E>) -> F) -> usize {
        size_of::<F>()
    }

    /// Beside its state, which is in memory once.
    #[test]
    fn a_connections_task_is_small() {
        let mqtt = future_size(Task::<portolan_mqtt::Connection>::run);
        let amqp = future_size(Task::<portolan_amqp091::Connection>::run);
        let states = (size_of::<Task<portolan_mqtt::Connection>>(), size_of::<Task<portolan_amqp091::Connection>>());
        println!("futures: MQTT {mqtt}, AMQP {amqp} bytes; states: {states:?}");
        assert!(mqtt <= 1024 && amqp <= 1024 && states.0 <= 2048, "MQTT {mqtt}, AMQP {amqp}, {states:?}");
    }
}
