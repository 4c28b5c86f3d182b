//! Flat keyed files (`KEY VALUE` a line, as memory.stat and /proc/vmstat): a struct and its parser from one table.

/// Declares a struct of `Option<u64>` figures and its parser. A key may have an older name beside it; a line this
/// kernel does not have leaves its figure absent, a line the table does not have is passed over.
macro_rules! flat {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$doc:meta])* $field:ident = $key:literal $(| $older:literal)*, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$doc])*
                #[doc = concat!("`", $key, "`")]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<u64>,
            )+
        }

        impl $name {
            /// Takes one line in; `false` for a key that is not in the table.
            fn take(&mut self, key: &str, value: &str) -> bool {
                let field = match key {
                    $( $key $(| $older)* => &mut self.$field, )+
                    _ => return false,
                };
                *field = $crate::host::figure(value.trim().as_bytes());
                true
            }

            /// Reads the content of the file.
            #[must_use]
            pub fn parse(content: &str) -> Self {
                let mut figures = Self::default();
                for (key, value) in content.lines().filter_map(|line| line.split_once(' ')) {
                    figures.take(key, value);
                }
                figures
            }

            /// Each figure beside the key it stands for.
            #[cfg(test)]
            pub(crate) fn by_key(&self) -> Vec<(&'static str, Option<u64>)> {
                vec![$( ($key, self.$field), )+]
            }
        }
    };
}

pub(super) use flat;

#[cfg(test)]
pub(super) mod testing {
    //! A table is right when each field comes from its own line of the real files.

    use std::collections::HashMap;
    use std::fmt::Write as _;

    /// The file with a value of its own in each line, so that no field can pass for another.
    pub(crate) fn numbered(content: &str) -> (String, HashMap<&str, u64>) {
        let mut text = String::new();
        let mut values = HashMap::new();
        for (at, line) in content.lines().enumerate() {
            let Some((key, _)) = line.split_once(' ') else {
                continue;
            };
            let value = 4096 * (at as u64 + 1);
            let _ = writeln!(text, "{key} {value}");
            values.insert(key, value);
        }
        (text, values)
    }
}
