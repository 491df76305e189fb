//! Data processing with known operands.

#![expect(clippy::cast_possible_truncation, reason = "the low half of a register is meant")]

use anyhow::{Result, bail};

/// Condition flags N, Z, C and V.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Nzcv(pub(crate) [bool; 4]);

impl Nzcv {
    /// Decodes a `ccmp`'s immediate.
    pub(crate) fn of(bits: u64) -> Self {
        Self([8, 4, 2, 1].map(|bit| bits & bit != 0))
    }

    /// Evaluates a condition.
    pub(crate) fn holds(self, condition: &str) -> Result<bool> {
        let Self([n, z, c, v]) = self;
        Ok(match condition {
            "eq" => z,
            "ne" => !z,
            "hs" | "cs" => c,
            "lo" | "cc" => !c,
            "mi" => n,
            "pl" => !n,
            "vs" => v,
            "vc" => !v,
            "hi" => c && !z,
            "ls" => !c || z,
            "ge" => n == v,
            "lt" => n != v,
            "gt" => !z && n == v,
            "le" => z || n != v,
            "al" => true,
            _ => bail!("the condition `{condition}` is unknown"),
        })
    }
}

/// Returns the opposite of a condition.
pub(crate) fn opposite(condition: &str) -> Result<&'static str> {
    const PAIRS: [(&str, &str); 8] = [
        ("eq", "ne"),
        ("hs", "lo"),
        ("cs", "cc"),
        ("mi", "pl"),
        ("vs", "vc"),
        ("hi", "ls"),
        ("ge", "lt"),
        ("gt", "le"),
    ];
    for (one, other) in PAIRS {
        if condition == one {
            return Ok(other);
        }
        if condition == other {
            return Ok(one);
        }
    }
    bail!("the condition `{condition}` has no opposite")
}

/// Returns the low 64 or 32 bits of a value.
pub(crate) const fn low(value: u64, wide: bool) -> u64 {
    if wide { value } else { value & 0xffff_ffff }
}

fn ones(count: u64) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// Applies an operand's shift or extension.
pub(crate) fn shifted(value: u64, kind: &str, amount: u32, wide: bool) -> Result<u64> {
    let bits = if wide { 64 } else { 32 };
    let value = low(value, wide);
    Ok(match kind {
        "lsl" | "uxtx" => value << amount,
        "lsr" => value >> amount,
        "ror" if wide => value.rotate_right(amount),
        "asr" => (sign(value, bits) >> amount).cast_unsigned(),
        "uxtb" => (value & 0xff) << amount,
        "uxth" => (value & 0xffff) << amount,
        "uxtw" => (value & 0xffff_ffff) << amount,
        "sxtb" => sign(value, 8).cast_unsigned() << amount,
        "sxth" => sign(value, 16).cast_unsigned() << amount,
        "sxtw" => sign(value, 32).cast_unsigned() << amount,
        _ => bail!("the shift `{kind}` is unknown"),
    })
}

fn sign(value: u64, bits: u32) -> i64 {
    (value << (64 - bits)).cast_signed() >> (64 - bits)
}

/// Adds two values. Returns the sum and the flags.
fn add(a: u64, b: u64, carry: bool, wide: bool) -> (u64, Nzcv) {
    let (a, b) = (low(a, wide), low(b, wide));
    let bits = if wide { 64 } else { 32 };
    let sum = u128::from(a) + u128::from(b) + u128::from(carry);
    let result = low((sum & u128::from(u64::MAX)) as u64, wide);
    let signs = [a, b, result].map(|value| sign(value, bits) < 0);
    let overflow = signs[0] == signs[1] && signs[0] != signs[2];
    (result, Nzcv([signs[2], result == 0, sum >> bits != 0, overflow]))
}

/// Evaluates an instruction. `inputs` are the source operands after shifts; `old` is the previous
/// value of the destination. Returns the flags if the instruction sets flags.
pub(crate) fn evaluate(
    name: &str,
    inputs: &[u64],
    old: u64,
    wide: bool,
) -> Result<(u64, Option<Nzcv>)> {
    let at = |index: usize| inputs.get(index).copied().unwrap_or(0);
    let (a, b, c) = (at(0), at(1), at(2));
    let bits = if wide { 64 } else { 32 };
    let logic = |value: u64| {
        let value = low(value, wide);
        (value, Some(Nzcv([sign(value, bits) < 0, value == 0, false, false])))
    };
    let flagged = |(value, flags)| (value, Some(flags));
    let (value, flags) = match name {
        "adds" | "cmn" => flagged(add(a, b, false, wide)),
        "subs" | "cmp" => flagged(add(a, !b, true, wide)),
        "ands" | "tst" => logic(a & b),
        "bics" => logic(a & !b),
        _ => (plain(name, [a, b, c], old, bits)?, None),
    };
    Ok((low(value, wide), flags))
}

fn plain(name: &str, [a, b, c]: [u64; 3], old: u64, bits: u32) -> Result<u64> {
    let wide = bits == 64;
    let modulo = (b % u64::from(bits)) as u32;
    Ok(match name {
        "mov" | "movz" | "adrp" | "adr" | "uxtw" => a,
        "add" => a.wrapping_add(b),
        "sub" => a.wrapping_sub(b),
        "neg" => 0u64.wrapping_sub(a),
        "and" => a & b,
        "orr" => a | b,
        "eor" => a ^ b,
        "bic" => a & !b,
        "orn" => a | !b,
        "eon" => a ^ !b,
        "mvn" | "movn" => !a,
        "lsl" => a << modulo,
        "lsr" => low(a, wide) >> modulo,
        "asr" => (sign(low(a, wide), bits) >> modulo).cast_unsigned(),
        "ror" if wide => a.rotate_right(modulo),
        "ror" => u64::from((low(a, false) as u32).rotate_right(modulo)),
        "ubfx" => (low(a, wide) >> b) & ones(c),
        "ubfiz" => (a & ones(c)) << b,
        "bfi" => old & !(ones(c) << b) | (a & ones(c)) << b,
        "bfxil" => old & !ones(c) | (low(a, wide) >> b) & ones(c),
        "uxtb" => a & 0xff,
        "uxth" => a & 0xffff,
        "sxtw" => sign(low(a, false), 32).cast_unsigned(),
        "mul" => a.wrapping_mul(b),
        "madd" => a.wrapping_mul(b).wrapping_add(c),
        "msub" => c.wrapping_sub(a.wrapping_mul(b)),
        "umull" => low(a, false).wrapping_mul(low(b, false)),
        "umaddl" => low(a, false).wrapping_mul(low(b, false)).wrapping_add(c),
        "umulh" => ((u128::from(a) * u128::from(b)) >> 64) as u64,
        "udiv" => low(a, wide).checked_div(low(b, wide)).unwrap_or(0),
        "clz" => u64::from(low(a, wide).leading_zeros() - (64 - bits)),
        "rbit" => low(a, wide).reverse_bits() >> (64 - bits),
        _ => bail!("the instruction `{name}` is unknown"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_flags_match_the_architecture() {
        let flags = |name, a, b, wide| evaluate(name, &[a, b], 0, wide).unwrap().1.unwrap().0;
        assert_eq!(flags("cmp", 1, 1, true), [false, true, true, false]);
        assert_eq!(flags("cmp", 0, 1, false), [true, false, false, false]);
        assert_eq!(flags("cmp", 1 << 63, 1, true), [false, false, true, true]);
        assert_eq!(flags("cmn", u64::MAX, 1, true), [false, true, true, false]);
        assert_eq!(flags("tst", 1 << 31, 1 << 31, false), [true, false, false, false]);
        assert!(Nzcv(flags("cmp", 3, 2, true)).holds("hi").unwrap());
        assert!(!Nzcv(flags("cmp", 3, 2, true)).holds(opposite("hi").unwrap()).unwrap());
    }

    #[test]
    fn bit_field_instructions_match_the_architecture() {
        let value = |name, inputs: &[u64], old| evaluate(name, inputs, old, true).unwrap().0;
        assert_eq!(value("ubfx", &[0xabcd, 4, 8], 0), 0xbc);
        assert_eq!(value("ubfiz", &[0xabcd, 4, 8], 0), 0xcd0);
        assert_eq!(value("bfi", &[0xff, 8, 4], 0x1234), 0x1f34);
        assert_eq!(value("bfxil", &[0xab0, 4, 8], 0xff00), 0xffab);
        assert_eq!(evaluate("clz", &[1], 0, false).unwrap().0, 31);
        assert_eq!(evaluate("rbit", &[1], 0, false).unwrap().0, 1 << 31);
    }
}
