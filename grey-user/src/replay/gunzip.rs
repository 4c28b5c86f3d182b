//! gzip as it is found after crashes: members one after another, cut off, damaged. Gives every byte that can be had and
//! keeps what was wrong.

use std::io::{self, Read};

use zlib_rs::{Inflate, InflateFlush, Status};

/// The first two bytes of a gzip member.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Compressed bytes read at once.
const CHUNK: usize = 1 << 16;
/// zlib's largest window, which every gzip can be read with; 16 more says that it is gzip and no zlib stream.
const WINDOW_BITS: u8 = 15 + 16;

/// What was wrong with a gzip input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It ends within a member, as after a SIGKILL.
    Cut,
    /// A member cannot be read on; reading goes on at the next one, if there is any.
    Corrupt,
    /// Something that is no gzip stands behind the last member.
    Trailing,
}

/// Reads gzip, members one after another.
pub(super) struct Gunzip<R> {
    inner: R,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    inflate: Inflate,
    state: State,
    /// Where the next member may begin if this one turns out to be damaged: behind its own first byte.
    again: usize,
    damage: Option<Damage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within a member.
    Member,
    /// Behind a member that was whole.
    Between,
    /// Behind a damaged one: looking for the next.
    Lost,
    Done,
}

impl<R: Read> Gunzip<R> {
    pub(super) fn new(inner: R) -> Self {
        Gunzip {
            inner,
            input: vec![0; CHUNK].into_boxed_slice(),
            start: 0,
            end: 0,
            inflate: Inflate::new(true, WINDOW_BITS),
            state: State::Member,
            again: 1,
            damage: None,
        }
    }

    /// The damage met since this was asked last.
    pub(super) fn damage(&mut self) -> Option<Damage> {
        self.damage.take()
    }

    /// Reads until `least` bytes are there; false if there are not that many any more.
    fn fill(&mut self, least: usize) -> io::Result<bool> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.again = self.again.saturating_sub(self.start);
            self.start = 0;
        }
        while self.end < least {
            match self.inner.read(&mut self.input[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn begin_member(&mut self) {
        self.inflate = Inflate::new(true, WINDOW_BITS);
        self.again = self.start + 1;
        self.state = State::Member;
    }

    /// Some bytes of a member; 0 when it is over.
    fn inflate(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let more = self.start < self.end || self.fill(1)?;
            let (read, wrote) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(
                &self.input[self.start..self.end],
                out,
                InflateFlush::NoFlush,
            );
            let read = (self.inflate.total_in() - read) as usize;
            let wrote = (self.inflate.total_out() - wrote) as usize;
            self.start += read;
            match result {
                Ok(Status::StreamEnd) => self.state = State::Between,
                Ok(_) if read == 0 && wrote == 0 && more => self.lost(),
                Ok(_) if read == 0 && wrote == 0 => {
                    self.damage = Some(Damage::Cut);
                    self.state = State::Done;
                }
                Ok(_) if wrote == 0 => continue,
                Ok(_) => {}
                Err(_) => self.lost(),
            }
            return Ok(wrote);
        }
    }

    fn lost(&mut self) {
        self.damage = Some(Damage::Corrupt);
        self.state = State::Lost;
        // What was read as a part of this member may be the next one: the damage may be a missing end.
        self.start = self.again.min(self.start);
    }

    /// Goes to the next member. It begins right here, unless one was damaged or padding stands between.
    fn next_member(&mut self) -> io::Result<()> {
        loop {
            let whole = self.end - self.start >= HEADER || self.fill(HEADER)?;
            let rest = &self.input[self.start..self.end];
            if !whole {
                // Zeros pad a tape's or a disk's last block.
                if self.state == State::Between && rest.iter().any(|byte| *byte != 0) {
                    self.damage = Some(Damage::Trailing);
                }
                self.state = State::Done;
                return Ok(());
            }
            match rest.windows(HEADER).position(is_header) {
                Some(0) => {
                    self.begin_member();
                    return Ok(());
                }
                found => {
                    let skipped = found.unwrap_or(rest.len() - HEADER + 1);
                    if self.state == State::Between && rest[..skipped].iter().any(|byte| *byte != 0)
                    {
                        self.damage = Some(Damage::Trailing);
                        self.state = State::Lost;
                    }
                    self.start += skipped;
                }
            }
        }
    }
}

/// Bytes of a member's fixed header.
const HEADER: usize = 10;

/// RFC 1952: magic, deflate, no reserved flags.
fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC) && bytes[2] == 8 && bytes[3] & 0xe0 == 0
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Done => return Ok(0),
                State::Member => {
                    let wrote = self.inflate(out)?;
                    if wrote > 0 {
                        return Ok(wrote);
                    }
                }
                State::Between | State::Lost => self.next_member()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    /// Lines that do not compress to nothing.
    fn text(from: u64) -> Vec<u8> {
        (from..from + 20_000)
            .flat_map(|n| format!("{n} {}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes())
            .collect()
    }

    fn read(bytes: &[u8]) -> (Vec<u8>, Vec<Damage>) {
        let mut gunzip = Gunzip::new(bytes);
        let (mut all, mut damage) = (Vec::new(), Vec::new());
        let mut buffer = [0; 4096];
        loop {
            let n = gunzip.read(&mut buffer).unwrap();
            damage.extend(gunzip.damage());
            if n == 0 {
                return (all, damage);
            }
            all.extend_from_slice(&buffer[..n]);
        }
    }

    #[test]
    fn members_one_after_another_are_one_text() {
        let (first, second) = (text(0), text(50_000));
        let mut bytes = gzip(&first);
        bytes.extend(gzip(&second));
        bytes.extend(gzip(b""));
        let (had, damage) = read(&bytes);
        assert!(had == [first, second].concat() && damage.is_empty());
    }

    #[test]
    fn zeros_behind_the_end_are_padding_and_anything_else_is_told() {
        let first = text(0);
        let mut bytes = gzip(&first);
        bytes.extend([0; 5000]);
        let (had, damage) = read(&bytes);
        assert!(had == first && damage.is_empty());
        let mut bytes = gzip(&first);
        bytes.extend(b"what is this doing here?");
        let (had, damage) = read(&bytes);
        assert!(had == first);
        assert_eq!(damage, [Damage::Trailing]);
    }

    #[test]
    fn every_byte_before_a_cut_is_had() {
        let first = text(0);
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(&first).unwrap();
        out.flush().unwrap();
        // As after a SIGKILL behind a flush: no trailer.
        let flushed = out.get_ref().clone();
        let (had, damage) = read(&flushed);
        assert_eq!((had.len(), damage), (first.len(), vec![Damage::Cut]));
        assert!(had == first);
        let mut before = 0;
        for cut in (11..flushed.len()).step_by(997) {
            let (had, damage) = read(&flushed[..cut]);
            assert!(first.starts_with(&had), "cut at {cut}");
            assert!(had.len() >= before, "cut at {cut}");
            assert_eq!(damage, [Damage::Cut], "cut at {cut}");
            before = had.len();
        }
        assert!(before > first.len() / 2);
    }

    #[test]
    fn a_damaged_member_costs_its_rest_and_not_the_next_one() {
        let (first, second) = (text(0), text(50_000));
        let mut bytes = gzip(&first);
        let middle = bytes.len() / 2;
        for byte in &mut bytes[middle..middle + 64] {
            *byte ^= 0x55;
        }
        bytes.extend(gzip(&second));
        let (had, damage) = read(&bytes);
        assert!(had.ends_with(&second));
        let common = had.iter().zip(&first).take_while(|(a, b)| a == b).count();
        assert!(
            common > first.len() * 2 / 5,
            "{common} of {} bytes before the damage",
            first.len()
        );
        assert!(damage.contains(&Damage::Corrupt), "{damage:?}");
    }

    #[test]
    fn a_member_without_end_does_not_swallow_the_next_one() {
        let (first, second) = (text(0), text(50_000));
        for cut in [11, 500, 3000] {
            let mut bytes = gzip(&first)[..cut].to_vec();
            bytes.extend(gzip(&second));
            let (had, damage) = read(&bytes);
            assert!(had.ends_with(&second), "cut at {cut}");
            assert!(damage.contains(&Damage::Corrupt), "cut at {cut}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let whole = gzip(&text(0)[..3000]);
        let mut seed = 1_u64;
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 20) as u8;
            }
            read(&bytes);
        }
    }
}
