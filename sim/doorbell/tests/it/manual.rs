//! Checks that completions and manual pages include all subcommands.
use crate::{printed, refusal};

/// Returns the names listed under `Commands:` in the help.
fn subcommands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn completions_name_every_subcommand() {
    let names = subcommands();
    assert!(names.len() > 10 && names.contains(&"lint".to_owned()), "{names:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell} does not complete {name}");
        }
    }
}

#[test]
fn every_subcommand_has_a_manual_page() {
    assert!(printed(&["man"]).contains("doorbell"));
    for name in subcommands() {
        let page = printed(&["man", &name]);
        assert!(page.starts_with(".ie") || page.contains(".TH"), "{name}: {page}");
        assert!(page.contains(".SH SYNOPSIS"), "{name} is described");
    }
}

#[test]
fn a_synopsis_shows_option_values() {
    let page = printed(&["man", "live"]);
    let (_, synopsis) = page.split_once(".SH SYNOPSIS\n").unwrap();
    let synopsis = synopsis.lines().next().unwrap();
    let root = r"[\fB\-\-root\fR \fI<DIR>\fR]";
    assert!(synopsis.contains(root) && synopsis.contains(r"[\fB\-\-json\fR]"), "{synopsis}");
}

#[test]
fn a_manual_page_of_an_unknown_subcommand_is_refused() {
    assert!(refusal(&["man", "ring"]).contains("no subcommand `ring`"));
}
