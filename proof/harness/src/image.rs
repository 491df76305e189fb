//! Builds images as ELF files, and as flat files with the header that Linux boot loaders expect.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use crate::{process, toolchain};

/// An image in its two forms.
#[derive(Debug)]
pub struct Image {
    /// ELF file with sections and symbols.
    pub elf: PathBuf,
    /// Flat file with the contents of memory, starting at the lowest loaded address.
    pub flat: PathBuf,
}

impl Image {
    /// Builds the program `program` of a package with the package's default features.
    pub fn build(workspace: &Workspace, package: &str, program: &str) -> Result<Self> {
        Self::build_with(workspace, package, program, &[])
    }

    /// Builds a program. `features` are the cargo options that select features.
    pub fn build_with(
        workspace: &Workspace,
        package: &str,
        program: &str,
        features: &[&str],
    ) -> Result<Self> {
        Self::of(elf(workspace, "release", package, program, features)?)
    }

    /// Flattens an ELF file into the file beside it that ends in `.img`.
    ///
    /// # Errors
    /// Fails if `elf` is not a 64-bit ELF file, or if a file cannot be accessed.
    pub fn of(elf: PathBuf) -> Result<Self> {
        let flat = elf.with_extension("img");
        flatten(&elf, &flat)?;
        Ok(Self { elf, flat })
    }

    /// Builds a program for another load address, such as that of a guest, whose RAM starts
    /// elsewhere.
    pub fn build_at(
        workspace: &Workspace,
        package: &str,
        program: &str,
        address: u64,
    ) -> Result<Self> {
        let mut cargo = cargo(workspace, "rustc", "release", package, program)?;
        cargo.args(["--", "-C", &format!("link-arg=--defsym=image_base={address:#x}")]);
        process::must(&mut cargo)?;
        let elf = built(workspace, "release", package, program);
        let flat = elf.with_extension(format!("{address:x}.img"));
        flatten(&elf, &flat)?;
        Ok(Self { elf, flat })
    }
}

/// Builds a program with a profile, and returns the ELF file.
pub fn elf(
    workspace: &Workspace,
    profile: &str,
    package: &str,
    program: &str,
    features: &[&str],
) -> Result<PathBuf> {
    process::must(cargo(workspace, "build", profile, package, program)?.args(features))?;
    Ok(built(workspace, profile, package, program))
}

/// Returns a command for cargo's `build` or `rustc` for one program.
fn cargo(
    workspace: &Workspace,
    verb: &str,
    profile: &str,
    package: &str,
    program: &str,
) -> Result<Command> {
    let target = target(package);
    toolchain::need_target(&workspace.root, target)?;
    let mut cargo = process::cargo(&folder(workspace, package));
    cargo.args([verb, "--profile", profile, "--package", package, "--bin", program]);
    cargo.args(["--target", target, "--target-dir"]).arg(&workspace.target);
    Ok(cargo)
}

/// Returns the folder of the workspace that a package belongs to.
fn folder(workspace: &Workspace, package: &str) -> PathBuf {
    let el2 = workspace.root.join("el2");
    if el2.join(package).exists() { el2 } else { workspace.root.join("images") }
}

fn built(workspace: &Workspace, profile: &str, package: &str, program: &str) -> PathBuf {
    workspace.target.join(target(package)).join(profile).join(program)
}

/// Returns the target that a package is built for.
fn target(package: &str) -> &'static str {
    let runs_guests = matches!(package, "hypervisor" | "one-vcpu");
    if runs_guests { toolchain::SOFT_FLOAT_TARGET } else { toolchain::BARE_TARGET }
}

/// Returns the total size of an ELF file's sections with instructions, in bytes.
pub fn text_bytes(file: &[u8]) -> Result<u64> {
    bytes_with(file, |flags| flags & INSTRUCTIONS != 0)
}

/// Returns the total size of an ELF file's sections without instructions that occupy memory, in
/// bytes.
pub fn data_bytes(file: &[u8]) -> Result<u64> {
    const MEMORY: u64 = 1 << 1;
    bytes_with(file, |flags| flags & (MEMORY | INSTRUCTIONS) == MEMORY)
}

/// Flag of a section with instructions.
const INSTRUCTIONS: u64 = 1 << 2;

/// Returns the total size of the sections whose flags are accepted.
fn bytes_with(file: &[u8], is_accepted: impl Fn(u64) -> bool) -> Result<u64> {
    let file = ElfFile::new(file)?;
    let mut bytes = 0;
    for header in file.sections()? {
        if is_accepted(file.number(header + 8, 8)?) {
            bytes += file.number(header + 32, 8)?;
        }
    }
    Ok(bytes)
}

/// Returns the names in an ELF file's symbol table. The file must have exactly one symbol table.
pub fn symbols(file: &[u8]) -> Result<Vec<String>> {
    const SYMBOLS: u64 = 2;
    const SYMBOL_BYTES: usize = 24;
    let file = ElfFile::new(file)?;
    let mut table = None;
    for header in file.sections()? {
        if file.number(header + 4, 4)? == SYMBOLS {
            table = Some(header);
        }
    }
    let table = table.context("the file has no symbol table")?;
    let strings = file.section(file.number(0x28, 8)? + 64 * file.number(table + 40, 4)?)?;
    let names = file.section(table)?.chunks_exact(SYMBOL_BYTES).map(|symbol| {
        let at = u32::from_le_bytes([symbol[0], symbol[1], symbol[2], symbol[3]]);
        let name = strings.get(usize::try_from(at)?..).context("a name lies outside its table")?;
        let end = name.iter().position(|byte| *byte == 0).context("a name is not terminated")?;
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    });
    names.collect()
}

/// A 64-bit ELF file.
struct ElfFile<'a>(&'a [u8]);

impl<'a> ElfFile<'a> {
    fn new(file: &'a [u8]) -> Result<Self> {
        let file = Self(file);
        let magic = (file.number(0, 4)?, file.number(4, 1)?);
        ensure!(magic == (0x464c_457f, 2), "wrong magic number");
        Ok(file)
    }

    /// Returns the offsets of the section headers.
    fn sections(&self) -> Result<impl Iterator<Item = u64> + use<>> {
        let (headers, count) = (self.number(0x28, 8)?, self.number(0x3c, 2)?);
        Ok((0..count).map(move |index| headers + 64 * index))
    }

    /// Returns the contents of the section with this header.
    fn section(&self, header: u64) -> Result<&'a [u8]> {
        let start = usize::try_from(self.number(header + 24, 8)?)?;
        let end = start.checked_add(usize::try_from(self.number(header + 32, 8)?)?);
        end.and_then(|end| self.0.get(start..end)).context("a section is truncated")
    }

    /// Reads a little-endian number.
    fn number(&self, at: u64, bytes: usize) -> Result<u64> {
        let at = usize::try_from(at)?;
        let field = at.checked_add(bytes).and_then(|end| self.0.get(at..end));
        let field = field.context("the file is too short")?;
        Ok(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// Writes the file's loaded segments in their memory layout, starting at the lowest address.
fn flatten(elf: &Path, flat: &Path) -> Result<()> {
    let file = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    // A machine of another run may be reading the image, so the file must not change.
    let new = flat.with_added_extension(std::process::id().to_string());
    fs::write(&new, memory_of(&file).context("not a 64-bit ELF file")?.bytes)?;
    fs::rename(new, flat).map_err(Into::into)
}

/// An ELF file's loaded segments in their memory layout.
#[derive(Debug)]
pub struct Memory {
    /// The lowest physical address.
    pub first: u64,
    /// Physical address of the first instruction.
    pub entry: u64,
    /// Contents, from the lowest address.
    pub bytes: Vec<u8>,
}

/// Returns the memory contents of a 64-bit ELF file.
///
/// # Errors
/// Fails if `file` is of another kind, is truncated, or loads segments farther apart than 4 GiB.
pub fn memory_of(file: &[u8]) -> Result<Memory> {
    const LOADED: u64 = 1;
    const MOST: u64 = 1 << 32;
    let elf = ElfFile::new(file)?;
    let number = |at, bytes| elf.number(at, bytes);
    let (headers, count) = (number(0x20, 8)?, number(0x38, 2)?);
    let (mut segments, mut entry) = (Vec::new(), number(0x18, 8)?);
    let start = entry;
    for header in (0..count).map(|index| headers + 56 * index) {
        let (offset, address, size) =
            (number(header + 8, 8)?, number(header + 24, 8)?, number(header + 32, 8)?);
        if number(header, 4)? == LOADED && size > 0 {
            segments.push((address, offset, size));
            let into = start.wrapping_sub(number(header + 16, 8)?);
            entry = if into < size { address.wrapping_add(into) } else { entry };
        }
    }
    segments.sort_unstable();
    let mut bytes = Vec::new();
    let first = segments.first().context("the file has no loaded segments")?.0;
    for (address, offset, size) in segments {
        let start = usize::try_from(offset)?;
        let end = start.checked_add(usize::try_from(size)?);
        let segment = end.and_then(|end| file.get(start..end)).context("a segment is truncated")?;
        ensure!(address - first < MOST, "a segment is too far from the first");
        bytes.resize(usize::try_from(address - first)?, 0);
        bytes.extend(segment);
    }
    Ok(Memory { first, entry, bytes })
}
