//! Shell completions and manual pages for the command.

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Outcome;
use crate::print;
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;
use std::io::Write;

/// Prints completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Outcome> {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print::text(|out| out.write_all(&script))?;
    Ok(Outcome::Good)
}

/// Prints a manual page.
pub(crate) fn page(args: &ManArgs) -> Result<Outcome> {
    let mut command = Cli::command();
    command.build();
    let wanted = match &args.subcommand {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name).cloned();
            found.with_context(|| format!("no subcommand `{name}`; `doorbell help` lists them"))?
        }
    };
    let mut page = Vec::new();
    Man::new(wanted.clone().version(env!("CARGO_PKG_VERSION"))).render(&mut page)?;
    let mut page = String::from_utf8(page)?;
    // The synopsis lacks the options' values.
    for option in wanted.get_opts() {
        let (Some(name), Some([value, ..])) = (option.get_long(), option.get_value_names()) else {
            continue;
        };
        let name = format!("[\\fB\\-\\-{}\\fR", name.replace('-', "\\-"));
        page = page.replacen(&format!("{name}]"), &format!("{name} \\fI<{value}>\\fR]"), 1);
    }
    print::text(|out| out.write_all(page.as_bytes()))?;
    Ok(Outcome::Good)
}
