//! A cgroup's identity in one allocation, for who keeps thousands of them.

use crate::event::Cgroup;

/// What a [`Cgroup`] says, in one piece: three strings of their own take twice as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// v2 cgroup id.
    pub id: Option<u64>,
    /// Path, kind and name, one after the other.
    text: Box<str>,
    /// Where the kind and where the name begin.
    kind: usize,
    name: usize,
}

impl Packed {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.kind]
    }

    /// What kind of cgroup it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.text[self.kind..self.name]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[self.name..]
    }

    /// The object that events carry.
    #[must_use]
    pub fn cgroup(&self) -> Cgroup {
        Cgroup {
            id: self.id,
            path: self.path().to_owned(),
            kind: self.kind().to_owned(),
            name: self.name().to_owned(),
        }
    }
}

impl From<&Cgroup> for Packed {
    fn from(cgroup: &Cgroup) -> Packed {
        let Cgroup {
            id,
            path,
            kind,
            name,
        } = cgroup;
        Packed {
            id: *id,
            text: [path.as_str(), kind, name].concat().into_boxed_str(),
            kind: path.len(),
            name: path.len() + kind.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_as_it_was() {
        for (id, path, kind, name) in [
            (Some(7), "/a.slice/b.service", "service", "b"),
            (None, "/", "root", "/"),
            (Some(1), "", "", ""),
            (None, "/grüß", "", "grüß"),
        ] {
            let cgroup = Cgroup {
                id,
                path: path.to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
            };
            let packed = Packed::from(&cgroup);
            assert_eq!(packed.cgroup(), cgroup);
            assert_eq!(
                (packed.path(), packed.kind(), packed.name()),
                (path, kind, name)
            );
        }
    }
}
