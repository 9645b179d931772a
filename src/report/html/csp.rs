//! The content policy of an HTML report: nothing is loaded, and no script or style counts but those that are named here by their hash.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

use crate::error::{Error, Result};

/// The policy under which only this style and this script count.
///
/// # Errors
/// Where there is no SHA-256.
pub(super) fn policy(style: &str, script: &str) -> Result<String> {
    Ok(format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        source(style)?,
        source(script)?
    ))
}

fn source(text: &str) -> Result<String> {
    // The one that the TLS library has: a browser knows no other hash than those of SHA-2.
    let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or_else(|| Error::internal("there is no SHA-256"))?;
    Ok(format!("sha256-{}", base64(suite.common.hash_provider.hash(text.as_bytes()).as_ref())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let known = digit <= chunk.len();
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if known { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_as_a_policy_has_it() {
        // The example of the Content Security Policy specification.
        let hash = source("alert('Hello, world.');").unwrap();
        assert_eq!(hash, "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=");
        assert_eq!([base64(b""), base64(b"f"), base64(b"fo"), base64(b"foo")], ["", "Zg==", "Zm8=", "Zm9v"]);
    }
}
