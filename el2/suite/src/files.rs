//! A guest's files and their locations in its memory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::image::{self, Memory};

/// Amount of machine RAM below the guest's RAM. This RAM belongs to the hypervisor.
pub(crate) const MACHINE_BYTES_BELOW: u64 = 256 << 20;
/// Address of RAM on QEMU's `virt` machine and in guests.
pub(crate) const RAM: u64 = 1 << 30;
/// Physical address of the first guest's RAM, which is also the address of a trusted guest's RAM.
pub(crate) const PHYSICAL_RAM: u64 = RAM + MACHINE_BYTES_BELOW;
/// Space at the end of the guest's RAM that the hypervisor uses for the devicetree.
const DEVICETREE_ROOM: u64 = 2 << 20;
const ALIGNMENT: u64 = 2 << 20;
/// First bytes of an ELF file.
const ELF: &[u8] = b"\x7fELF";
/// Offset of images without a header, or with an old one.
const OLD_OFFSET: u64 = 0x8_0000;

/// A guest's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: Option<&'a Path>,
    pub(crate) append: &'a str,
}

/// The places of the guests' kernels, and where they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the offset that the kernel's header states.
    Kernel,
    /// From flash. The kernel is firmware.
    Flash,
    /// At an offset from the start of RAM. The kernel is a flat file, whose first instruction is at
    /// `entry`.
    At { offset: u64, entry: u64 },
}

impl Start {
    /// Returns the hypervisor's options.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Kernel => String::new(),
            Self::Flash => " firmware".into(),
            Self::At { offset, entry } => format!(" offset={offset} entry={entry}"),
        }
    }
}

impl<'a> Files<'a> {
    /// Returns the files of a guest without an initramfs.
    pub(crate) const fn alone(kernel: &'a Path, append: &'a str) -> Self {
        Self { kernel, initrd: None, append }
    }

    /// Returns the QEMU arguments that load the files into the memory of a guest with `memory` MiB.
    /// The guest follows `others` guests with the same amount of memory. Firmware is loaded to the
    /// start of that memory.
    pub(crate) fn loaders(&self, memory: u32, others: usize, place: Start) -> Result<Vec<String>> {
        let bytes = u64::from(memory) << 20;
        let start = PHYSICAL_RAM + bytes * others as u64;
        let end = start + bytes - DEVICETREE_ROOM;
        let unreadable = |file: &Path| format!("cannot read {}", file.display());
        let file = fs::read(self.kernel).with_context(|| unreadable(self.kernel))?;
        let bytes_of_file = file.len() as u64;
        let span = match place {
            Start::Kernel => Span::of(&file),
            Start::Flash => Span { offset: 0, bytes: bytes_of_file },
            Start::At { offset, .. } => Span { offset, bytes: bytes_of_file },
        };
        let kernel = start.checked_add(span.offset).context("the kernel is too large")?;
        let mut next = kernel.checked_add(span.bytes).context("the kernel is too large")?;
        let loader = |kind: &str, address: u64, file: &Path, more: &str| {
            let file = escaped(&file.to_string_lossy());
            ["-device".into(), format!("guest-loader,addr={address:#x},{kind}={file}{more}")]
        };
        let append = format!(",bootargs={}", escaped(self.append));
        let mut arguments = Vec::from(loader("kernel", kernel, self.kernel, &append));
        if let Some(initrd) = self.initrd {
            let address = next.next_multiple_of(ALIGNMENT);
            arguments.extend(loader("initrd", address, initrd, ""));
            next = address + fs::metadata(initrd).with_context(|| unreadable(initrd))?.len();
        }
        ensure!(next <= end, "the guest's files do not fit into {memory} MiB");
        Ok(arguments)
    }
}

/// Doubles commas, as QEMU requires in option values.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

/// Returns the place of a kernel that is not firmware, and its file. The contents of an ELF file
/// are written to `flat`, which becomes the kernel.
pub(crate) fn placed(kernel: PathBuf, flat: PathBuf) -> Result<(Start, PathBuf)> {
    let unreadable = || format!("cannot read {}", kernel.display());
    let file = fs::read(&kernel).with_context(unreadable)?;
    if !file.starts_with(ELF) {
        return Ok((Start::Kernel, kernel));
    }
    let Memory { first, entry, bytes } = image::memory_of(&file).with_context(unreadable)?;
    let offset = first.checked_sub(RAM).context("the ELF file starts below `virt`'s RAM")?;
    let entry = entry.checked_sub(first).context("the ELF file's entry is below its segments")?;
    fs::write(&flat, bytes)?;
    Ok((Start::At { offset, entry }, flat))
}

/// Returns the address of the first guest's RAM.
pub(crate) const fn ram(trusted: bool) -> u64 {
    if trusted { PHYSICAL_RAM } else { RAM }
}

/// Checks that a kernel is an arm64 `Image` or an ELF file. If the file is of another kind, the
/// error names that kind.
pub(crate) fn check_kernel(kernel: &Path) -> Result<()> {
    let file = fs::read(kernel).with_context(|| {
        format!("cannot read {}; `--kernel debian` downloads a kernel", kernel.display())
    })?;
    if is_image(&file) || file.starts_with(ELF) {
        return Ok(());
    }
    bail!(
        "{} is {}, not an arm64 `Image` as boot loaders expect, nor an ELF file. `--kernel debian` \
         downloads an `Image`, boot/vmlinuz-* of Debian's linux-image-arm64 is one, and building a \
         kernel creates one in arch/arm64/boot/Image. `--raw` starts a flat program without its \
         header",
        kernel.display(),
        kind(&file)
    )
}

/// Returns `true` if a file has the magic number of an arm64 kernel
/// (Documentation/arch/arm64/booting.rst).
fn is_image(file: &[u8]) -> bool {
    file.get(56..60) == Some(b"ARM\x64")
}

/// Returns the kind of a file that is not an `Image`.
fn kind(file: &[u8]) -> &'static str {
    /// File kinds: offset of the magic number, the number, and the name.
    const KINDS: &[(usize, &[u8], &str)] = &[
        (0, b"\x1f\x8b", "compressed by gzip (`gunzip` unpacks it)"),
        (0, b"\xfd7zXZ\0", "compressed by xz (`unxz` unpacks it)"),
        (0, b"\x28\xb5\x2f\xfd", "compressed by zstd (`unzstd` unpacks it)"),
        (4, b"zimg", "an EFI program with a compressed kernel (zboot)"),
        (0x202, b"HdrS", "a kernel for x86"),
        (0, b"MZ", "an EFI program"),
    ];
    let has = |at: usize, bytes: &[u8]| file.get(at..).is_some_and(|file| file.starts_with(bytes));
    let known = KINDS.iter().find(|(at, bytes, _)| has(*at, bytes));
    match known {
        Some((_, _, kind)) => kind,
        None if file.is_empty() => "empty",
        None if !file.contains(&0) && str::from_utf8(file).is_ok() => "text",
        None => "a file of an unknown kind",
    }
}

/// The memory range that a kernel occupies (Documentation/arch/arm64/booting.rst).
#[derive(Debug, PartialEq, Eq)]
struct Span {
    /// Offset from an address that is aligned to 2 MiB.
    offset: u64,
    bytes: u64,
}

impl Span {
    fn of(file: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = file.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let size = file.len() as u64;
        match number(16) {
            bytes if is_image(file) && bytes != 0 => {
                Self { offset: number(8) % ALIGNMENT, bytes: bytes.max(size) }
            }
            _ => Self { offset: OLD_OFFSET, bytes: size },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(offset: u64, bytes: u64) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[8..16].copy_from_slice(&offset.to_le_bytes());
        file[16..24].copy_from_slice(&bytes.to_le_bytes());
        file[56..60].copy_from_slice(b"ARM\x64");
        file
    }

    #[test]
    fn images_without_a_size_use_the_legacy_offset() {
        let old = |bytes| Span { offset: 0x8_0000, bytes };
        assert_eq!(Span::of(&image(0, 0)), old(64));
        assert_eq!(Span::of(&[0; 100]), old(100));
        assert_eq!(Span::of(&[]), old(0));
    }

    #[test]
    fn the_format_of_a_file_that_is_not_an_image_is_named() {
        let at = |offset: usize, bytes: &[u8]| [&vec![0; offset], bytes].concat();
        let x86 = [b"MZ", &at(0x200, b"HdrS")[..]].concat();
        for (file, name) in [
            (at(0, b"\x1f\x8b\x08"), "gzip"),
            (at(0, b"\xfd7zXZ\0\0"), "xz"),
            (at(0, b"\x28\xb5\x2f\xfd"), "zstd"),
            (at(0, b"MZ\0\0zimg"), "zboot"),
            (at(0, b"MZ\0\0\0\0\0\0"), "EFI"),
            (x86, "x86"),
            (vec![], "empty"),
            (at(0, b"root=/dev/vda\n"), "text"),
            (vec![0; 100], "unknown"),
        ] {
            assert!(!is_image(&file) && kind(&file).contains(name), "{name}: {}", kind(&file));
        }
        assert!(is_image(&image(0, 0)));
    }
}
