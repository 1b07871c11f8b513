//! Names that the server makes up.

use rand::Rng;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `prefix` and 22 random characters, 132 bits that nobody guesses or meets twice.
pub(crate) fn generated(prefix: &str) -> String {
    let mut random = rand::rng();
    let mut name = String::with_capacity(prefix.len() + 22);
    name.push_str(prefix);
    name.extend((0..22).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_have_their_length() {
        let (one, other) = (generated("amq.gen-"), generated("amq.gen-"));
        assert_eq!(one.len(), 30);
        assert_ne!(one, other);
    }
}
