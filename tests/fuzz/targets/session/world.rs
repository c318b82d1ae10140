//! What a session meets: a client and a queue in memory, which do as planned and note what is done to them.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use crate::fuzzing::input::Input;
use crate::jail::Need;
use crate::queue::{Committed, Open, Origin, Queue, Unavailable, Verdict};
use crate::session::Stream;
use crate::wire::verp::Sender;

/// What qmqpd_authorized_clients says of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    Yes,
    No,
    CannotTell,
}

/// How far the queue opens a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    Yes,
    No,
    /// It does, and then does not say its id.
    Nameless,
}

/// How the client's bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Eof,
    TimedOut,
    Reset,
}

/// What becomes of a write to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Whole,
    ByteByByte,
    Nothing,
}

/// How everybody behaves, and what main.cf says.
#[derive(Debug)]
pub struct Plan {
    pub listed: Listed,
    pub opens: Opens,
    /// The process can be confined.
    pub is_confined: bool,
    verdict: u8,
    pub end: End,
    pub taken: Taken,
    pub soft_bounce: bool,
    pub verp_delimiter_filter: &'static str,
    /// message_size_limit
    pub message_limit: u64,
    /// How many bytes arrive at a time.
    step: usize,
}

impl Plan {
    /// Where the bytes are all zero, everything goes well.
    pub fn read(input: &mut Input<'_>) -> Plan {
        Plan {
            listed: input.choice(&[Listed::Yes, Listed::No, Listed::CannotTell]),
            opens: input.choice(&[Opens::Yes, Opens::No, Opens::Yes, Opens::Nameless]),
            is_confined: !input.bit(),
            verdict: input.byte(),
            end: input.choice(&[End::Eof, End::TimedOut, End::Reset]),
            taken: input.choice(&[Taken::Whole, Taken::ByteByByte, Taken::Nothing]),
            soft_bounce: input.bit(),
            verp_delimiter_filter: input.choice(&["-=+", "+="]),
            message_limit: u64::from(input.byte()),
            step: usize::from(input.byte().wrapping_sub(1)).max(1),
        }
    }

    /// What the queue makes of the message.
    pub fn verdict(&self) -> Verdict {
        match self.verdict % 11 {
            0 => Verdict::Queued,
            1 => Verdict::Deferred(b"4.7.1 later".to_vec()),
            2 => Verdict::Rejected(b"4.7.1 perhaps".to_vec()),
            3 => Verdict::Rejected(b"5.7.1 never\nyours".to_vec()),
            4 => Verdict::TooLarge,
            5 => Verdict::TooManyHops,
            6 => Verdict::WriteError,
            7 => Verdict::NoRecipients,
            8 => Verdict::Refused("refused"),
            9 => Verdict::Failed("failed"),
            _ => Verdict::Internal(5),
        }
    }
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Opened,
    Confined,
    /// Something was read of the client.
    Read,
    Content(Vec<u8>),
    Sender(Sender),
    Recipient(Vec<u8>),
    Committed,
    /// Something was written to the client.
    Said(Vec<u8>),
    /// The client was told that no more will be.
    Ended,
    AfterReply,
}

#[derive(Debug)]
pub struct State {
    pub plan: Plan,
    /// What the client sends.
    pub input: Vec<u8>,
    position: Cell<usize>,
    pub events: RefCell<Vec<Event>>,
}

#[derive(Debug, Clone)]
pub struct World(pub Rc<State>);

impl World {
    pub fn new(plan: Plan, input: &[u8]) -> World {
        World(Rc::new(State {
            plan,
            input: input.to_vec(),
            position: Cell::new(0),
            events: RefCell::default(),
        }))
    }

    pub fn note(&self, event: Event) {
        self.0.events.borrow_mut().push(event);
    }

    fn end(&self) -> io::Result<usize> {
        match self.0.plan.end {
            End::Eof => Ok(0),
            End::TimedOut => Err(io::ErrorKind::TimedOut.into()),
            End::Reset => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn left(&self) -> &[u8] {
        &self.0.input[self.0.position.get()..]
    }
}

/// Either direction of the connection.
#[derive(Debug)]
pub struct Memory {
    world: World,
    interrupted: bool,
}

impl Memory {
    pub fn new(world: &World) -> Memory {
        Memory {
            world: world.clone(),
            interrupted: false,
        }
    }
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.read_arrived(buffer)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match self.world.0.plan.taken {
            Taken::Whole => bytes.len(),
            Taken::ByteByByte => 1,
            Taken::Nothing => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        self.world.note(Event::Said(bytes[..taken].to_vec()));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Memory {
    fn wait_for_input(&mut self) -> io::Result<bool> {
        if self.world.left().is_empty() {
            return self.world.end().map(|_| false);
        }
        Ok(true)
    }

    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.world.note(Event::Read);
        let left = self.world.left();
        if left.is_empty() {
            return self.world.end();
        }
        let n = left.len().min(buffer.len()).min(self.world.0.plan.step);
        buffer[..n].copy_from_slice(&left[..n]);
        let position = &self.world.0.position;
        position.set(position.get() + n);
        Ok(n)
    }

    fn set_limit(&mut self, _: Duration) {}

    fn shutdown_write(&mut self) {
        self.world.note(Event::Ended);
    }
}

impl Open for World {
    fn open<'a>(&'a self, _: &'a Origin<'a>) -> Result<Box<dyn Queue + 'a>, Unavailable> {
        if self.0.plan.opens == Opens::No {
            return Err(Unavailable);
        }
        self.note(Event::Opened);
        Ok(Box::new(self.clone()))
    }
}

impl Queue for World {
    fn needs(&self) -> Vec<Need<'_>> {
        Vec::new()
    }

    fn queue_id(&mut self) -> Result<String, Unavailable> {
        match self.0.plan.opens {
            Opens::Yes => Ok("4F1".to_owned()),
            Opens::No | Opens::Nameless => Err(Unavailable),
        }
    }

    fn content(&mut self, piece: Vec<u8>) {
        self.note(Event::Content(piece));
    }

    fn sender(&mut self, sender: &Sender) {
        self.note(Event::Sender(sender.clone()));
    }

    fn recipient(&mut self, recipient: &[u8]) {
        self.note(Event::Recipient(recipient.to_vec()));
    }

    fn commit(self: Box<Self>) -> Committed {
        self.note(Event::Committed);
        let world = self.clone();
        Committed {
            verdict: self.0.plan.verdict(),
            after_reply: Some(Box::new(move || world.note(Event::AfterReply))),
        }
    }
}

/// What the queue was given, in the order that it may rely on.
#[derive(Debug, Default)]
pub struct Message {
    pub was_opened: bool,
    pub content: Vec<u8>,
    pub sender: Option<Sender>,
    pub recipients: Vec<Vec<u8>>,
    pub is_committed: bool,
}

impl Message {
    pub fn of(events: &[Event]) -> Message {
        let mut message = Message::default();
        for event in events {
            match event {
                Event::Opened => message.was_opened = true,
                Event::Content(piece) => {
                    assert!(message.sender.is_none());
                    message.content.extend_from_slice(piece);
                }
                Event::Sender(sender) => {
                    assert_eq!(message.sender.replace(sender.clone()), None);
                }
                Event::Recipient(recipient) => {
                    assert!(message.sender.is_some() && !message.is_committed);
                    message.recipients.push(recipient.clone());
                }
                Event::Committed => {
                    assert!(message.sender.is_some());
                    message.is_committed = true;
                }
                Event::Confined
                | Event::Read
                | Event::Said(_)
                | Event::Ended
                | Event::AfterReply => {}
            }
        }
        message
    }
}
