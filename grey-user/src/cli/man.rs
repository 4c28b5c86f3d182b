//! Manual pages, made from the commands themselves: one of the program, one of each of its commands.

use clap::Command;

use super::Failure;

/// The page of the command at this path (`snapshot`, `compare`); of the program where it is empty.
///
/// # Errors
/// Usage (2) where there is no such command.
pub(super) fn page(program: Command, path: &[String]) -> Result<Vec<u8>, Failure> {
    let mut command = program;
    // Gives the commands the names of their pages, `grey-ebpf-snapshot-compare`.
    command.build();
    for name in path {
        let known: Vec<&str> = command
            .get_subcommands()
            .map(Command::get_name)
            .filter(|known| *known != "help")
            .collect();
        let Some(found) = command.find_subcommand(name) else {
            let shown = grey_core::view::printable(name);
            return Err(Failure::usage(match known.is_empty() {
                true => format!("man: `{}` has no commands of its own", command.get_name()),
                false => format!("man: no command `{shown}`; there are {}", known.join(", ")),
            }));
        };
        command = found.clone();
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .section("8")
        .render(&mut page)
        .map_err(|error| Failure::failed(format!("manual page: {error}")))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::{Cli, Exit};

    fn text(path: &[&str]) -> Result<String, Failure> {
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        page(Cli::command(), &path).map(|page| String::from_utf8(page).unwrap())
    }

    #[test]
    fn every_command_has_a_page_by_the_name_the_others_refer_to_it() {
        fn each(command: &Command, path: &[&str]) {
            let page = text(path).unwrap();
            let name = [&["grey-ebpf"], path].concat().join("-");
            assert!(
                page.contains(&format!(".TH {name} 8")),
                "{name}: {}",
                &page[..200]
            );
            for below in command
                .get_subcommands()
                .filter(|below| below.get_name() != "help")
            {
                let referred = format!("{name}-{}(8)", below.get_name()).replace('-', "\\-");
                assert!(
                    page.contains(&referred),
                    "{name} does not refer to {referred}"
                );
                each(below, &[path, &[below.get_name()]].concat());
            }
        }
        each(&Cli::command(), &[]);
    }

    #[test]
    fn a_command_that_is_none_is_told_with_those_there_are() {
        let failure = text(&["snapshot", "delete"]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            failure.message,
            "man: no command `delete`; there are save, compare"
        );
        let failure = text(&["doctor", "x"]).unwrap_err();
        assert_eq!(failure.message, "man: `doctor` has no commands of its own");
    }
}
