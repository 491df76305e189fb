//! Dumps of ACPI tables in one file: the text of `acpidump`, or tables one after the other.

use anyhow::{Result, bail};

/// Length of a table's header in bytes.
const HEADER_BYTES: usize = 36;
/// Number of bytes in a line of a dump.
const LINE_BYTES: usize = 16;

/// Returns the tables of a dump; `None` if the bytes are no dump.
///
/// # Errors
/// Returns an error if a line of a text is missing, as in a message that was cut off.
pub(crate) fn tables(bytes: &[u8], wanted: &[&str]) -> Result<Option<Vec<Vec<u8>>>> {
    if let Some(tables) = binary(bytes, wanted) {
        return Ok(Some(tables));
    }
    let text = String::from_utf8_lossy(bytes);
    let mut tables: Vec<(&str, Vec<u8>)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // Messages quote text with `>`.
        let line = line.trim_start_matches(['>', ' ', '\t']);
        if let Some(name) = heading(line) {
            tables.push((name, Vec::new()));
        } else if let Some((name, table)) = tables.last_mut()
            && let Some((offset, bytes)) = row(line)
        {
            if offset != table.len() {
                bail!("line {number}: {name} has {:#x} bytes before {offset:#x}", table.len());
            }
            table.extend(bytes);
        }
    }
    if tables.is_empty() {
        return Ok(None);
    }
    let is_wanted = |name: &str| wanted.iter().any(|one| name.eq_ignore_ascii_case(one));
    let tables = tables.into_iter().filter(|(name, _)| is_wanted(name));
    Ok(Some(tables.map(|(_, table)| table).collect()))
}

/// Splits binary tables by the lengths in their headers, and returns those that are wanted.
fn binary(bytes: &[u8], wanted: &[&str]) -> Option<Vec<Vec<u8>>> {
    let (mut tables, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let name = std::str::from_utf8(rest.get(..4)?).ok()?;
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?);
        let length = usize::try_from(length).ok().filter(|&length| length >= HEADER_BYTES)?;
        let (table, after) = rest.split_at_checked(length)?;
        if wanted.iter().any(|one| name.eq_ignore_ascii_case(one)) {
            tables.push(table.to_vec());
        }
        rest = after;
    }
    (!tables.is_empty()).then_some(tables)
}

/// Returns the table's name in a line such as `APIC @ 0x0000000000000000`.
fn heading(line: &str) -> Option<&str> {
    let (name, address) = line.split_once('@')?;
    let name = name.trim();
    (name.len() == 4 && address.trim_start().starts_with("0x")).then_some(name)
}

/// Returns the offset and the bytes of a line such as `0010: 4F 45 4D  OEM`.
fn row(line: &str) -> Option<(usize, Vec<u8>)> {
    let (offset, bytes) = line.split_once(':')?;
    let offset = usize::from_str_radix(offset.trim(), 16).ok()?;
    let bytes = bytes.trim_start().split(' ').take(LINE_BYTES);
    let is_byte =
        |byte: &&str| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
    let bytes = bytes.take_while(is_byte).map_while(|byte| u8::from_str_radix(byte, 16).ok());
    let bytes: Vec<u8> = bytes.collect();
    (!bytes.is_empty()).then_some((offset, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a table as `acpidump` does, with a prefix before each line.
    fn dumped(name: &str, table: &[u8], prefix: &str) -> String {
        let mut text = vec![format!("{prefix}{name} @ 0x0000000000000000")];
        for (at, line) in table.chunks(LINE_BYTES).enumerate() {
            let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02X}")).collect();
            let shown = String::from_utf8_lossy(line).replace(char::is_control, ".");
            let (offset, bytes) = (at * LINE_BYTES, bytes.join(" "));
            text.push(format!("{prefix}    {offset:04X}: {bytes:<47}  {shown}"));
        }
        text.push(format!("{prefix}\r\n"));
        text.join("\r\n")
    }

    fn table(name: &str, length: u8) -> Vec<u8> {
        let mut table: Vec<u8> = name.bytes().chain([length, 0, 0, 0]).collect();
        table.extend((8..length).map(|byte| if byte % 3 == 0 { b'A' } else { b'4' }));
        table
    }

    #[test]
    fn a_dump_yields_the_requested_tables() {
        let (dsdt, apic, iort) = (table("DSDT", 40), table("APIC", 44), table("IORT", 77));
        for prefix in ["", "> "] {
            let named = [("DSDT", &dsdt), ("APIC", &apic), ("IORT", &iort)];
            let text: String =
                named.iter().map(|(name, bytes)| dumped(name, bytes, prefix)).collect();
            let found = tables(text.as_bytes(), &["apic", "iort"]).unwrap();
            assert_eq!(found, Some(vec![apic.clone(), iort.clone()]), "{text}");
        }
        let joined = [dsdt, apic.clone(), iort.clone()].concat();
        assert_eq!(tables(&joined, &["apic", "iort"]).unwrap(), Some(vec![apic, iort]));
    }

    #[test]
    fn bytes_of_another_format_are_not_a_dump() {
        for bytes in [&b"no devicetree"[..], b"", b"APIC", b"note: mail me @ home", &[0xff; 64]] {
            assert_eq!(tables(bytes, &["apic"]).unwrap(), None);
        }
    }
}
