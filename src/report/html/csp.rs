//! The content security policy of an HTML report: no external resources, and only the style and the script with the given hashes.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

use crate::error::{Error, Result};

/// Returns the policy that allows only this style and this script.
///
/// # Errors
/// If SHA-256 is unavailable.
pub(super) fn policy(style: &str, script: &str) -> Result<String> {
    Ok(format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        source(style)?,
        source(script)?
    ))
}

fn source(text: &str) -> Result<String> {
    // Browsers accept only SHA-2 hashes. The TLS library has one, so that no further dependency is needed.
    let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or_else(|| Error::internal("SHA-256 is unavailable"))?;
    Ok(format!("sha256-{}", base64(suite.common.hash_provider.hash(text.as_bytes()).as_ref())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_digit = digit <= chunk.len();
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if is_digit { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_the_form_of_a_policy() {
        // The example of the Content Security Policy specification.
        let hash = source("alert('Hello, world.');").unwrap();
        assert_eq!(hash, "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=");
        assert_eq!([base64(b""), base64(b"f"), base64(b"fo"), base64(b"foo")], ["", "Zg==", "Zm8=", "Zm9v"]);
    }
}
