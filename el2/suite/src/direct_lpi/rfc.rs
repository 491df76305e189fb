//! The Direct LPI driver that was posted for review in 2021 ("Add irq domain and chip for Direct
//! LPI without ITS"). A file outside this repository contains it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use doorbell_harness::suite::Absent;
use doorbell_harness::workspace;

use super::named::{NO_INTERRUPT, NamedBy};

/// Folder of the message, relative to the project's root, if the suite's option names no file.
const DEFAULT: &str = "../shared/seeds";
/// Name of the driver's file in the posted patch.
const DRIVER: &str = "irq-gic-v3-dlpi.c";

/// A replacement of identifiers: a definition, and the old and new identifier in it.
type Replacement = (&'static str, &'static str, &'static str);

/// A mistake that the review found, and that a replacement of identifiers mends.
pub(super) struct Mistake {
    pub(super) name: &'static str,
    /// How the mistake is named in a driver without the earlier ones.
    pub(super) named: NamedBy,
    mend: &'static [Replacement],
}

/// The mistakes, each of which shows once the earlier ones are mended.
pub(super) const MISTAKES: [Mistake; 4] = [
    // The message's address must be the physical one.
    Mistake {
        name: "a virtual address",
        named: NamedBy::Lines(&[&["0xffff8", "the message's address is not a doorbell"]]),
        mend: &[("dlpi_get_msi_base", "rd_base", "phys_base")],
    },
    Mistake {
        name: "an event instead of an INTID",
        named: NO_INTERRUPT,
        mend: &[("dlpi_irq_compose_msi_msg", "dlpi_get_event_id", "shim_intid")],
    },
    // The new redistributor must also reread the LPI's configuration, and messages that a CPU takes
    // offline are sent again.
    Mistake {
        name: "a message that a move does not rewrite",
        named: NamedBy::Judge("all interrupts arrived at one CPU"),
        mend: &[
            ("dlpi_set_affinity", "IRQ_SET_MASK_OK_DONE", "IRQ_SET_MASK_OK"),
            ("dlpi_set_affinity", "irq_data_update_effective_affinity", "shim_move"),
            ("dlpi_irq_domain_activate", "irq_data_update_effective_affinity", "shim_move"),
        ],
    },
    Mistake {
        name: "a pending state that cannot be set",
        named: NamedBy::Judge("a retriggered interrupt was taken 0 times"),
        mend: &[
            ("dlpi_irq_chip", "dlpi_irq_set_irqchip_state", "shim_set_state"),
            ("dlpi_irq_retrigger", "dlpi_irq_set_irqchip_state", "shim_set_state"),
        ],
    },
];

/// Returns the driver of the message in `file`, or in a file of the default folder, with this
/// number of mistakes mended.
///
/// # Errors
/// The driver is absent if there is no such file.
pub(super) fn driver(file: Option<&Path>, mended: usize) -> Result<String> {
    let default = workspace::this()?.root.join(DEFAULT);
    let file = file.unwrap_or(&default);
    let files = if file.is_dir() {
        file.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?
    } else {
        vec![file.to_path_buf()]
    };
    let mut texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let driver = texts.find_map(|text| extracted(&text)).ok_or_else(|| {
        let place = file.display();
        Absent::new(format!("`-- --rfc FILE` names the RFC's message; {place} does not have it"))
    })?;
    let mut replacements = MISTAKES[..mended].iter().flat_map(|mistake| mistake.mend);
    replacements.try_fold(driver, |driver, it| replaced(&driver, *it))
}

/// Returns the driver of a message. The archive of the list replaced tabs by nothing or spaces.
fn extracted(message: &str) -> Option<String> {
    let is_start = |line: &&str| line.starts_with("+++ ") && line.ends_with(DRIVER);
    let mut lines = message.lines();
    lines.by_ref().find(is_start)?;
    let added = lines.take_while(|line| !line.starts_with("diff ")).filter_map(|line| {
        let line = line.strip_prefix('+')?;
        Some(format!("{}\n", line.trim_start()))
    });
    Some(added.collect())
}

/// Replaces an identifier in a definition.
fn replaced(driver: &str, (name, old, new): (&str, &str, &str)) -> Result<String> {
    let body = definition(driver, name).with_context(|| format!("the RFC has no {name}"))?;
    let (before, after) = (&driver[..body.start], &driver[body.end..]);
    let mut inside = String::new();
    let mut rest = &driver[body];
    let mut times = 0;
    while let Some(at) = identifier(rest, old) {
        inside += &rest[..at];
        inside += new;
        rest = &rest[at + old.len()..];
        times += 1;
    }
    ensure!(times > 0, "{name} of the RFC has no {old}");
    Ok([before, &inside, rest, after].concat())
}

/// Returns the range between the braces of a function or variable.
fn definition(driver: &str, name: &str) -> Option<Range<usize>> {
    let mut from = 0;
    loop {
        let end = from + identifier(&driver[from..], name)? + name.len();
        let rest = &driver[end..];
        let gap = if rest.starts_with('(') {
            closing(rest, '(', ')')? + 1
        } else {
            rest.find(|letter| !matches!(letter, ' ' | '='))?
        };
        let open = gap + rest[gap..].find(|letter: char| !letter.is_whitespace())?;
        if rest[open..].starts_with('{') {
            return Some(end + open..end + open + closing(&rest[open..], '{', '}')?);
        }
        from = end;
    }
}

/// Returns the offset of an identifier in a text.
fn identifier(text: &str, name: &str) -> Option<usize> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_whole =
        |at: usize| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part);
    text.match_indices(name).map(|(at, _)| at).find(|at| is_whole(*at))
}

/// Returns the offset of the delimiter that closes the first one of a text.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_usize;
    text.char_indices().find_map(|(at, letter)| {
        depth += usize::from(letter == open);
        if letter == close {
            depth = depth.checked_sub(1)?;
            return (depth == 0).then_some(at);
        }
        None
    })
}
