//! Pictures: `PIC S9(7)V99` is a number of nine digits, two of them decimals, with a sign.

use super::{Place, Refusal};

/// The meaning of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Picture {
    /// Characters, also those of an edited number.
    Text { width: u32, edited: bool },
    /// A number. A negative scale is the number of zeros that follow the digits.
    Number { digits: u32, scale: i32, signed: bool },
}

/// The maximum repetition of a symbol.
const MOST: u32 = 1_000_000;

const PLACE_HINT: &str = "check the picture against the COBOL language reference";

/// Reads a picture in capitals.
pub(super) fn picture(text: &str, at: Place) -> Result<Picture, Refusal> {
    let symbols = symbols(text, at)?;
    let count =
        |wanted: &str| symbols.iter().filter(|(symbol, _)| wanted.contains(*symbol)).map(|(_, n)| n).sum::<u32>();
    if let Some((symbol, _)) = symbols.iter().find(|(symbol, _)| matches!(symbol, 'N' | 'G' | 'U' | 'E' | '1')) {
        return at.refuse(
            format!(
                "`{symbol}` in `PIC {text}` is not supported: its characters are not single bytes of the code page"
            ),
            "convert the field to characters of the code page in the export",
        );
    }
    let known = "XA9SVPB0/Z*+-$.,RD";
    if let Some((symbol, _)) = symbols.iter().find(|(symbol, _)| !known.contains(*symbol)) {
        return at.refuse(format!("unknown symbol `{symbol}` in `PIC {text}`"), PLACE_HINT);
    }
    if count("XA") > 0 {
        return match count("SVPZ*+-$.,RD") {
            0 => Ok(Picture::Text { width: count("XA9B0/"), edited: count("B0/") > 0 }),
            _ => at.refuse(format!("`PIC {text}` has symbols of texts and of numbers"), PLACE_HINT),
        };
    }
    if count("BZ0/*+-$.,RD") > 0 {
        return match count("S") {
            // The symbols of `CR` and `DB` count twice.
            0 => Ok(Picture::Text { width: count("9BZ0/*+-$.,") + 2 * count("RD"), edited: true }),
            _ => at.refuse(format!("`PIC {text}` has `S` in an edited number"), PLACE_HINT),
        };
    }
    number(text, &symbols, at)
}

fn number(text: &str, symbols: &[(char, u32)], at: Place) -> Result<Picture, Refusal> {
    let flat: String = symbols.iter().map(|(symbol, _)| *symbol).collect();
    let (signed, rest) = flat.strip_prefix('S').map_or((false, flat.as_str()), |rest| (true, rest));
    let amount = |wanted: char| symbols.iter().filter(|(symbol, _)| *symbol == wanted).map(|(_, n)| *n).sum::<u32>();
    let digits = amount('9');
    let wrong = || at.refuse(format!("invalid picture `PIC {text}`"), PLACE_HINT);
    if digits == 0 || amount('S') > 1 || amount('V') > 1 {
        return wrong();
    }
    // Repeated symbols in a row are one; what is left is one of few shapes.
    let mut shape: Vec<char> = rest.chars().collect();
    shape.dedup();
    let shape: String = shape.into_iter().collect();
    let before: u32 =
        symbols.iter().take_while(|(symbol, _)| *symbol != 'V').filter(|(s, _)| *s == '9').map(|(_, n)| n).sum();
    let zeros = amount('P');
    let scale = match shape.as_str() {
        "9" | "9V" => 0,
        "9V9" | "V9" => i64::from(digits) - i64::from(if shape == "V9" { 0 } else { before }),
        "P9" | "VP9" | "PV9" => i64::from(zeros) + i64::from(digits),
        "9P" | "9PV" => -i64::from(zeros),
        _ => return wrong(),
    };
    if digits > 38 || scale.abs() > 38 {
        return at.refuse(format!("`PIC {text}` has more than 38 digits"), "split the field in the export");
    }
    Ok(Picture::Number { digits, scale: scale as i32, signed })
}

/// Returns the symbols of a picture with their repetitions; `CR` is `R`, and `DB` is `D`.
fn symbols(text: &str, at: Place) -> Result<Vec<(char, u32)>, Refusal> {
    let mut symbols: Vec<(char, u32)> = Vec::new();
    let mut rest = text;
    while let Some(symbol) = rest.chars().next() {
        let (symbol, len) = match (rest.get(..2), symbol) {
            (Some("CR"), _) => ('R', 2),
            (Some("DB"), _) => ('D', 2),
            (_, 'R' | 'D') => ('?', 1),
            (_, symbol) => (symbol, symbol.len_utf8()),
        };
        rest = &rest[len..];
        let mut times = 1;
        if let Some(inside) = rest.strip_prefix('(') {
            let found = inside.split_once(')').and_then(|(number, after)| Some((number.parse::<u32>().ok()?, after)));
            let Some((number @ 1..=MOST, after)) = found else {
                return at.refuse(format!("invalid repetition in `PIC {text}`"), PLACE_HINT);
            };
            (times, rest) = (number, after);
        }
        symbols.push((symbol, times));
    }
    Ok(symbols)
}
