//! Decides whether text output is colored and whether progress bars are animated.

use anstream::stream::IsTerminal as _;
use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use std::ffi::OsString;
use std::{env, io};

/// When to use colors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ColorWhen {
    Always,
    /// On a terminal, unless `NO_COLOR` or `TERM=dumb` is set, or if `FORCE_COLOR` is set.
    Auto,
    Never,
}

impl ColorWhen {
    /// Returns the last `--color` among the arguments. Invalid values are left to the parser. It
    /// cannot supply the choice, because its own messages are colored, too.
    pub(crate) fn of_arguments(arguments: impl Iterator<Item = String>) -> Self {
        let mut chosen = Self::Auto;
        let mut arguments = arguments.take_while(|argument| argument != "--");
        while let Some(argument) = arguments.next() {
            let value = match argument.strip_prefix("--color") {
                Some("") => arguments.next(),
                Some(value) => value.strip_prefix('=').map(str::to_owned),
                None => None,
            };
            let value = value.and_then(|value| Self::from_str(&value, false).ok());
            chosen = value.unwrap_or(chosen);
        }
        chosen
    }

    /// Moves the options of all subcommands that stand before the subcommand behind its name, where
    /// the parser expects them.
    pub(crate) fn in_subcommand(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
        let mut all: Vec<OsString> = arguments.collect();
        let mut count = 0;
        while let Some(one) = all.get(1 + count).and_then(|one| one.to_str()) {
            count += match one {
                "--color" => 2,
                "-q" | "--quiet" => 1,
                one if one.starts_with("--color=") => 1,
                _ => break,
            };
        }
        let first = all.get_mut(1..2 + count).unwrap_or_default();
        if first.last().is_some_and(|name| !name.to_string_lossy().starts_with('-')) {
            first.rotate_left(count);
        }
        all
    }

    /// Applies this choice to the whole process.
    pub(crate) fn choose(self) {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            // <https://force-color.org>; anstream reads the other variables.
            Self::Auto if is_set("FORCE_COLOR") && !is_set("NO_COLOR") => ColorChoice::Always,
            Self::Always => ColorChoice::Always,
            Self::Auto => ColorChoice::Auto,
            Self::Never => ColorChoice::Never,
        }
        .write_global();
    }
}

/// Returns `true` if text on standard output may have colors.
pub(crate) fn is_styled() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Returns `true` if standard error is a terminal that can animate a progress bar.
pub(crate) fn is_animated() -> bool {
    io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// Emphasizes a text, in green if `is_good`, otherwise in red.
pub(crate) fn emphasized(text: &str, is_good: bool) -> String {
    let color = if is_good { 32 } else { 31 };
    if is_styled() { format!("\u{1b}[1;{color}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> ColorWhen {
        ColorWhen::of_arguments(arguments.iter().map(|&one| one.to_owned()))
    }

    #[test]
    fn the_last_color_option_takes_effect() {
        assert_eq!(of(&["lint", "--color=always", "--color", "never"]), ColorWhen::Never);
        assert_eq!(of(&["--color", "always", "--", "--color=never"]), ColorWhen::Always);
        assert_eq!(of(&["--color=pink", "--colors=always"]), ColorWhen::Auto);
    }
}
