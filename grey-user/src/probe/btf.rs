//! A small reader of the kernel's BTF: member offsets, function names, tracepoint prototypes. aya keeps the members
//! of its own reader private, and Rust emits no CO-RE relocations, so offsets are looked up here and passed in.
//! Format: Documentation/bpf/btf.rst.

use std::collections::HashSet;

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// A forged file could nest anonymous structures without end.
const MAX_DEPTH: u32 = 16;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why BTF could not be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or of the other byte order.
    #[error("kernel BTF: bad header")]
    Header,
    /// A type reaches behind the end of its section.
    #[error("kernel BTF: type {0} is cut short")]
    Truncated(u32),
    /// A kind of type this reader has no size for.
    #[error("kernel BTF: type {id} is of unknown kind {kind}")]
    UnknownKind {
        /// Type id.
        id: u32,
        /// Kind number.
        kind: u32,
    },
    /// No structure of that name.
    #[error("kernel BTF has no struct {0}")]
    NoStruct(String),
    /// More than one structure of that name with different members.
    #[error("kernel BTF has several structs named {0}; its offsets cannot be trusted")]
    Ambiguous(String),
    /// No such member.
    #[error("kernel BTF: struct {0} has no member {1}")]
    NoMember(String, String),
}

/// What one parameter of a tracepoint is, as far as the choice of a program needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param {
    /// An integer, enum or bool.
    Int,
    /// A pointer to the named structure (empty: to something else).
    Pointer(String),
    /// Anything else.
    Other,
}

/// Where a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outer structure.
    pub offset: u32,
    type_id: u32,
}

/// The parsed file: offsets of the type records, and the raw bytes.
pub struct Btf {
    data: Vec<u8>,
    types: usize,
    strings: usize,
    strings_end: usize,
    /// Byte position of each type, by id; type 0 is void.
    positions: Vec<u32>,
}

impl Btf {
    /// Parses the raw bytes of `/sys/kernel/btf/vmlinux`.
    pub fn parse(data: Vec<u8>) -> Result<Btf, BtfError> {
        let word = |at: usize| {
            data.get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_ne_bytes)
        };
        let magic = data
            .get(0..2)
            .and_then(|b| b.try_into().ok())
            .map(u16::from_ne_bytes);
        if magic != Some(MAGIC) || data.len() < HEADER_LEN {
            return Err(BtfError::Header);
        }
        let field = |at: usize| word(at).map(|w| w as usize).ok_or(BtfError::Header);
        let header = field(4)?;
        let (types, types_len) = (header + field(8)?, field(12)?);
        let (strings, strings_len) = (header + field(16)?, field(20)?);
        let (types_end, strings_end) = (types + types_len, strings + strings_len);
        if types_end > data.len() || strings_end > data.len() {
            return Err(BtfError::Header);
        }
        let mut positions = vec![0];
        let mut at = types;
        while at < types_end {
            let id = positions.len() as u32;
            let info = word(at + 4).ok_or(BtfError::Truncated(id))?;
            positions.push(at as u32);
            at += 12
                + extra_len(info).ok_or(BtfError::UnknownKind {
                    id,
                    kind: info >> 24 & 0x1f,
                })?;
            if at > types_end {
                return Err(BtfError::Truncated(id));
            }
        }
        Ok(Btf {
            data,
            types,
            strings,
            strings_end,
            positions,
        })
    }

    fn word(&self, at: usize) -> u32 {
        self.data
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.positions
            .get(id as usize)
            .map(|p| *p as usize)
            .filter(|p| *p >= self.types)
    }

    /// (kind, number of members, kind_flag) of a type.
    fn info(&self, id: u32) -> (u32, usize, bool) {
        let Some(at) = self.position(id) else {
            return (0, 0, false);
        };
        let info = self.word(at + 4);
        (info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 != 0)
    }

    fn size_or_type(&self, id: u32) -> u32 {
        self.position(id).map_or(0, |at| self.word(at + 8))
    }

    fn string(&self, offset: u32) -> &[u8] {
        let start = self.strings.saturating_add(offset as usize);
        let tail = self.data.get(start..self.strings_end).unwrap_or(&[]);
        let end = tail.iter().position(|b| *b == 0).unwrap_or(tail.len());
        &tail[..end]
    }

    fn name(&self, id: u32) -> &[u8] {
        self.position(id)
            .map_or(&[], |at| self.string(self.word(at)))
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        1..self.positions.len() as u32
    }

    /// Follows typedef, const, volatile, restrict and type tags.
    fn resolve(&self, mut id: u32) -> u32 {
        for _ in 0..MAX_DEPTH {
            match self.info(id).0 {
                kind::TYPEDEF | kind::CONST | kind::VOLATILE | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.size_or_type(id);
                }
                _ => break,
            }
        }
        id
    }

    /// Id of the one structure of that name.
    fn structure(&self, name: &str) -> Result<u32, BtfError> {
        let mut found: Option<u32> = None;
        for id in self.ids() {
            if self.info(id).0 != kind::STRUCT || self.name(id) != name.as_bytes() {
                continue;
            }
            match found {
                // Duplicates of one size come from modules' or assembler's views of the same structure.
                Some(first) if self.size_or_type(first) != self.size_or_type(id) => {
                    return Err(BtfError::Ambiguous(name.to_owned()));
                }
                Some(_) => {}
                None => found = Some(id),
            }
        }
        found.ok_or_else(|| BtfError::NoStruct(name.to_owned()))
    }

    /// Member of a named structure; anonymous structures and unions inside it are searched too.
    pub fn member(&self, structure: &str, member: &str) -> Result<Member, BtfError> {
        self.member_of(self.structure(structure)?, member, 0)
            .ok_or_else(|| BtfError::NoMember(structure.to_owned(), member.to_owned()))
    }

    /// Offset of a member of a member, and so on, of a named structure.
    pub fn path(&self, structure: &str, members: &[&str]) -> Result<u32, BtfError> {
        let (mut at, mut outer, mut offset) = (self.structure(structure)?, structure, 0);
        for &member in members {
            let found = self
                .member_of(at, member, 0)
                .ok_or_else(|| BtfError::NoMember(outer.to_owned(), member.to_owned()))?;
            (at, outer) = (self.resolve(found.type_id), member);
            offset += found.offset;
        }
        Ok(offset)
    }

    /// Offset of the element of an array of pointers that an enumerator numbers.
    pub fn element(
        &self,
        (structure, member): (&str, &str),
        (enumeration, name): (&str, &str),
    ) -> Result<u32, BtfError> {
        let array = self.member(structure, member)?;
        let id = self
            .ids()
            .find(|id| self.info(*id).0 == kind::ENUM && self.name(*id) == enumeration.as_bytes())
            .ok_or_else(|| BtfError::NoStruct(enumeration.to_owned()))?;
        let missing = || BtfError::NoMember(enumeration.to_owned(), name.to_owned());
        let start = self.position(id).ok_or_else(missing)? + 12;
        let number = (0..self.info(id).1)
            .map(|n| start + 8 * n)
            .find(|at| self.string(self.word(*at)) == name.as_bytes())
            .map(|at| self.word(at + 4))
            .ok_or_else(missing)?;
        number
            .checked_mul(size_of::<u64>() as u32)
            .and_then(|at| at.checked_add(array.offset))
            .ok_or_else(missing)
    }

    fn member_of(&self, id: u32, name: &str, depth: u32) -> Option<Member> {
        let (kind, count, has_bitfields) = self.info(id);
        if depth > MAX_DEPTH || (kind != kind::STRUCT && kind != kind::UNION) {
            return None;
        }
        let start = self.position(id)? + 12;
        for n in 0..count {
            let at = start + 12 * n;
            let (member_name, type_id, bits) = (
                self.string(self.word(at)),
                self.word(at + 4),
                self.word(at + 8),
            );
            let bits = if has_bitfields {
                bits & 0xff_ffff
            } else {
                bits
            };
            if member_name == name.as_bytes() {
                return Some(Member {
                    offset: bits / 8,
                    type_id,
                });
            }
            if member_name.is_empty()
                && let Some(inner) = self.member_of(self.resolve(type_id), name, depth + 1)
            {
                return Some(Member {
                    offset: bits / 8 + inner.offset,
                    type_id: inner.type_id,
                });
            }
        }
        None
    }

    /// Where the first counter of `mm_struct.rss_stat` holds its value, and the distance to the next one. The member
    /// is an array of percpu_counter, a structure with an array of atomic_long_t, or the like.
    pub fn rss_stat(&self) -> Result<(u32, u32), BtfError> {
        let member = self.member("mm_struct", "rss_stat")?;
        let mut array = self.resolve(member.type_id);
        let mut offset = member.offset;
        if self.info(array).0 == kind::STRUCT {
            let inner = self.member_of(array, "count", 0).ok_or_else(|| {
                BtfError::NoMember("mm_struct.rss_stat".to_owned(), "count".to_owned())
            })?;
            array = self.resolve(inner.type_id);
            offset += inner.offset;
        }
        let missing = || BtfError::NoMember("mm_struct.rss_stat".to_owned(), "[]".to_owned());
        if self.info(array).0 != kind::ARRAY {
            return Err(missing());
        }
        let element = self.resolve(self.word(self.position(array).ok_or_else(missing)? + 12));
        let value = match self.info(element).0 {
            // percpu_counter.count, or the lone member of atomic_long_t.
            kind::STRUCT => self.member_of(element, "count", 0).map_or(0, |m| m.offset),
            kind::INT => 0,
            _ => return Err(missing()),
        };
        Ok((offset + value, self.size_or_type(element)))
    }

    /// Names of the functions in BTF, of those asked for.
    pub fn functions<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> HashSet<String> {
        let wanted: HashSet<&[u8]> = wanted.into_iter().map(str::as_bytes).collect();
        self.ids()
            .filter(|id| self.info(*id).0 == kind::FUNC)
            .map(|id| self.name(id))
            .filter(|name| wanted.contains(name))
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    /// Parameters that a BTF program on this tracepoint gets, or `None` where there is no such tracepoint.
    pub fn tracepoint(&self, name: &str) -> Option<Vec<Param>> {
        let wanted = format!("btf_trace_{name}");
        let typedef = self
            .ids()
            .find(|id| self.info(*id).0 == kind::TYPEDEF && self.name(*id) == wanted.as_bytes())?;
        let pointer = self.resolve(typedef);
        let prototype = self.resolve(self.size_or_type(pointer));
        let (found, count, _) = self.info(prototype);
        if self.info(pointer).0 != kind::PTR || found != kind::FUNC_PROTO {
            return None;
        }
        let start = self.position(prototype)? + 12;
        // The first one is the tracepoint's private data, which programs do not see.
        Some(
            (1..count)
                .map(|n| self.param(self.word(start + 8 * n + 4)))
                .collect(),
        )
    }

    fn param(&self, id: u32) -> Param {
        let id = self.resolve(id);
        match self.info(id).0 {
            kind::INT | kind::ENUM | kind::ENUM64 => Param::Int,
            kind::PTR => {
                let target = self.resolve(self.size_or_type(id));
                let name = if self.info(target).0 == kind::STRUCT {
                    self.name(target)
                } else {
                    &[]
                };
                Param::Pointer(String::from_utf8_lossy(name).into_owned())
            }
            _ => Param::Other,
        }
    }
}

/// Bytes that follow the 12 common ones of a type.
fn extra_len(info: u32) -> Option<usize> {
    let count = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        kind::PTR | 7 | kind::TYPEDEF..=kind::FUNC | 16 | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds BTF: struct `s { int a; struct { int b; }; int c[]…` is enough to test the walk.
    fn sample() -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut string = |text: &str| {
            let at = strings.len() as u32;
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let mut types: Vec<u32> = Vec::new();
        types.extend([string("int"), kind::INT << 24, 4, 0]); // 1
        types.extend([0, kind::STRUCT << 24 | 1, 4, string("b"), 1, 0]); // 2: struct { int b; }
        types.extend([
            string("s"),
            kind::STRUCT << 24 | 2,
            8,
            string("a"),
            1,
            0,
            0,
            2,
            32,
        ]); // 3
        types.extend([0, kind::PTR << 24, 3]); // 4: struct s *
        types.extend([0, kind::FUNC_PROTO << 24 | 3, 0, 0, 4, 0, 4, 0, 1]); // 5: (data, struct s *, int)
        types.extend([0, kind::PTR << 24, 5]); // 6
        types.extend([string("btf_trace_thing"), kind::TYPEDEF << 24, 6]); // 7
        types.extend([string("do_it"), kind::FUNC << 24, 5]); // 8
        types.extend([0, kind::ARRAY << 24, 0, 4, 1, 3]); // 9: struct s *[3]
        types.extend([string("u"), kind::STRUCT << 24 | 2, 40]); // 10: { struct s in; struct s *all[3]; }
        types.extend([string("in"), 3, 0, string("all"), 9, 64]);
        types.extend([string("e"), kind::ENUM << 24 | 2, 4]); // 11: { none, some = 2 }
        types.extend([string("none"), 0, string("some"), 2]);
        let types: Vec<u8> = types.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        for word in [
            HEADER_LEN as u32,
            0,
            types.len() as u32,
            types.len() as u32,
            strings.len() as u32,
        ] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn a_member_inside_an_anonymous_structure_is_found_at_its_outer_offset() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.member("s", "b").unwrap().offset, 4);
        assert_eq!(btf.member("s", "a").unwrap().offset, 0);
        assert_eq!(
            btf.member("s", "z"),
            Err(BtfError::NoMember("s".into(), "z".into()))
        );
        assert_eq!(btf.member("t", "z"), Err(BtfError::NoStruct("t".into())));
    }

    #[test]
    fn a_path_adds_up_and_an_element_is_where_its_enumerator_says() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.path("u", &["in", "b"]), Ok(4));
        let no_z = BtfError::NoMember("in".into(), "z".into());
        assert_eq!(btf.path("u", &["in", "z"]), Err(no_z));
        assert_eq!(btf.element(("u", "all"), ("e", "some")), Ok(8 + 2 * 8));
        assert!(btf.element(("u", "all"), ("e", "other")).is_err());
        assert!(btf.element(("u", "all"), ("f", "some")).is_err());
        assert!(btf.element(("u", "none"), ("e", "some")).is_err());
    }

    #[test]
    fn a_tracepoint_shows_the_parameters_behind_its_private_data() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(
            btf.tracepoint("thing"),
            Some(vec![Param::Pointer("s".into()), Param::Int])
        );
        assert_eq!(btf.tracepoint("other"), None);
        assert!(btf.functions(["do_it", "do_that"]).contains("do_it"));
    }

    #[test]
    fn every_cut_of_the_file_is_an_error_or_harmless() {
        let data = sample();
        for end in 0..data.len() {
            if let Ok(btf) = Btf::parse(data[..end].to_vec()) {
                let _ = btf.member("s", "b");
            }
        }
        for at in 0..data.len() {
            let mut broken = data.clone();
            broken[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(broken) {
                let _ = (
                    btf.member("s", "b"),
                    btf.tracepoint("thing"),
                    btf.rss_stat(),
                    btf.path("u", &["in", "b"]),
                    btf.element(("u", "all"), ("e", "some")),
                );
            }
        }
    }
}
