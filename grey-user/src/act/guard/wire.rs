//! What controller and guard say to each other: one packet each, without allocation.

use grey_core::act::{KnobFile, Text};

/// The longest packet: a journal's name has up to 255 bytes.
pub(super) const MAX: usize = 320;
/// Both sides are the same binary; this catches a stranger.
const MAGIC: u8 = 0x67;

/// The name of the journal in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    len: u8,
    bytes: [u8; 255],
}

impl Name {
    pub(super) fn new(name: &[u8]) -> Option<Name> {
        let mut bytes = [0; 255];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Name {
            len: name.len() as u8,
            bytes,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A change to remember; the file comes along as a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arm {
    pub id: u64,
    pub step: u32,
    pub file: KnobFile,
    pub old: Text,
    pub new: Text,
    pub leaves: Option<Text>,
}

/// What the controller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The first. Descriptors come along: the controller's pidfd, the journal's folder, and the v2 root if the guard
    /// has a cgroup to take away at its end.
    Hello {
        hang_ms: u64,
        journal: Name,
    },
    Arm(Arm),
    /// `None`: for as long as the controller lives.
    Lease {
        id: u64,
        ms: Option<u64>,
    },
    /// `linger`: a helper of ours hangs in the kernel, so go on putting `old` back until [`Ask::Settle`].
    Release {
        id: u64,
        step: Option<u32>,
        linger: bool,
    },
    /// No helper hangs any more.
    Settle,
    Beat,
    Bye,
}

/// What the guard says. All but [`Reply::Revoked`] answer the packet of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    /// The table is full, or the packet makes no sense.
    Refused,
    /// The lease of this action is over.
    Expired,
    /// The controller was taken for hung.
    Revoked,
}

struct Out {
    bytes: [u8; MAX],
    len: usize,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.put(&[text.len() as u8]);
        self.put(text);
    }

    fn option(&mut self, number: Option<u64>) {
        self.put(&[u8::from(number.is_some())]);
        self.put(&number.unwrap_or(0).to_ne_bytes());
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.take(8)?.try_into().ok()?))
    }

    fn option(&mut self) -> Option<Option<u64>> {
        let some = self.u8()? != 0;
        let number = self.u64()?;
        Some(some.then_some(number))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }
}

impl Ask {
    /// As a packet: its bytes and their number.
    pub(super) fn encode(&self, seq: u32) -> ([u8; MAX], usize) {
        let mut out = Out {
            bytes: [0; MAX],
            len: 0,
        };
        out.put(&[MAGIC]);
        out.put(&seq.to_ne_bytes());
        match self {
            Ask::Hello { hang_ms, journal } => {
                out.put(&[0]);
                out.put(&hang_ms.to_ne_bytes());
                out.text(journal.bytes());
            }
            Ask::Arm(arm) => {
                out.put(&[1]);
                out.put(&arm.id.to_ne_bytes());
                out.put(&arm.step.to_ne_bytes());
                let at = KnobFile::ALL.iter().position(|file| *file == arm.file);
                out.put(&[at.map_or(u8::MAX, |at| at as u8)]);
                out.text(arm.old.bytes());
                out.text(arm.new.bytes());
                // No value is empty.
                out.text(arm.leaves.as_ref().map_or(&[], Text::bytes));
            }
            Ask::Lease { id, ms } => {
                out.put(&[2]);
                out.put(&id.to_ne_bytes());
                out.option(*ms);
            }
            Ask::Release { id, step, linger } => {
                out.put(&[3]);
                out.put(&id.to_ne_bytes());
                out.option(step.map(u64::from));
                out.put(&[u8::from(*linger)]);
            }
            Ask::Settle => out.put(&[4]),
            Ask::Beat => out.put(&[5]),
            Ask::Bye => out.put(&[6]),
        }
        (out.bytes, out.len)
    }

    /// The number of a packet and what it says; `None` if it is none of ours.
    pub(super) fn decode(packet: &[u8]) -> Option<(u32, Ask)> {
        let mut packet = In(packet);
        if packet.u8()? != MAGIC {
            return None;
        }
        let seq = packet.u32()?;
        let ask = match packet.u8()? {
            0 => Ask::Hello {
                hang_ms: packet.u64()?,
                journal: Name::new(packet.text()?)?,
            },
            1 => Ask::Arm(Arm {
                id: packet.u64()?,
                step: packet.u32()?,
                file: *KnobFile::ALL.get(usize::from(packet.u8()?))?,
                old: Text::new(packet.text()?)?,
                new: Text::new(packet.text()?)?,
                leaves: match packet.text()? {
                    [] => None,
                    text => Some(Text::new(text)?),
                },
            }),
            2 => Ask::Lease {
                id: packet.u64()?,
                ms: packet.option()?,
            },
            3 => Ask::Release {
                id: packet.u64()?,
                step: match packet.option()? {
                    Some(step) => Some(u32::try_from(step).ok()?),
                    None => None,
                },
                linger: packet.u8()? != 0,
            },
            4 => Ask::Settle,
            5 => Ask::Beat,
            6 => Ask::Bye,
            _ => return None,
        };
        Some((seq, ask))
    }
}

impl Reply {
    pub(super) fn encode(self, seq: u32) -> [u8; 6] {
        let [a, b, c, d] = seq.to_ne_bytes();
        [MAGIC, self as u8, a, b, c, d]
    }

    pub(super) fn decode(packet: &[u8]) -> Option<(u32, Reply)> {
        let &[MAGIC, kind, a, b, c, d] = packet else {
            return None;
        };
        let reply = [Reply::Done, Reply::Refused, Reply::Expired, Reply::Revoked]
            .into_iter()
            .find(|reply| *reply as u8 == kind)?;
        Some((u32::from_ne_bytes([a, b, c, d]), reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_half_a_packet_is_not() {
        let text = |text: &str| Text::new(text.as_bytes()).unwrap();
        let asks = [
            Ask::Hello {
                hang_ms: 1500,
                journal: Name::new(&[b'x'; 255]).unwrap(),
            },
            Ask::Arm(Arm {
                id: u64::MAX,
                step: 3,
                file: KnobFile::KsmUseZeroPages,
                old: text("0123456789012345678901234567890"),
                new: text("max"),
                leaves: Some(text("100")),
            }),
            Ask::Arm(Arm {
                id: 1,
                step: u32::MAX,
                file: KnobFile::MemoryHigh,
                old: text("max"),
                new: text("4096"),
                leaves: None,
            }),
            Ask::Lease { id: 7, ms: None },
            Ask::Lease {
                id: 7,
                ms: Some(250),
            },
            Ask::Release {
                id: 7,
                step: Some(2),
                linger: true,
            },
            Ask::Release {
                id: 7,
                step: None,
                linger: false,
            },
            Ask::Settle,
            Ask::Beat,
            Ask::Bye,
        ];
        for (seq, ask) in asks.iter().enumerate() {
            let (packet, len) = ask.encode(seq as u32);
            assert_eq!(Ask::decode(&packet[..len]), Some((seq as u32, *ask)));
            for cut in 0..len {
                assert_eq!(Ask::decode(&packet[..cut]), None, "{ask:?} cut at {cut}");
            }
        }
        assert_eq!(Ask::decode(b"thread panicked"), None);
        for reply in [Reply::Done, Reply::Refused, Reply::Expired, Reply::Revoked] {
            assert_eq!(Reply::decode(&reply.encode(9)), Some((9, reply)));
        }
        assert_eq!(Reply::decode(b"g"), None);
    }
}
