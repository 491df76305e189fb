//! Base 64 (RFC 4648 §4), as far as two commands of the protocol need it.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The digits, padded to a multiple of four.
pub(super) fn encode(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.chunks(3).flat_map(|chunk| {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        let digit = move |place: u32| {
            let [low, ..] = (group >> (18 - 6 * place)).to_le_bytes();
            char::from(DIGITS[usize::from(low & 0x3f)])
        };
        let filled = chunk.len();
        (0..4).map(move |place: u32| if place as usize <= filled { digit(place) } else { '=' })
    })
}

/// The bytes; `None` where the text is no base 64.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.as_bytes().chunks(4) {
        let mut group = 0u32;
        for digit in chunk {
            let value = DIGITS.iter().zip(0..).find(|(known, _)| *known == digit)?.1;
            group = group << 6 | value;
        }
        // A lone digit holds no byte: the length above leaves two to four.
        let missing = 4 - chunk.len();
        let [_, all @ ..] = (group << (6 * missing)).to_be_bytes();
        bytes.extend(&all[..3 - missing]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_the_rfc_hold() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()).collect::<String>(), coded);
            assert_eq!(decode(coded).as_deref(), Some(plain.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes).collect::<String>()), Some(bytes));
        }

        #[test]
        fn no_text_makes_decoding_panic(text: String) {
            decode(&text);
        }
    }
}
