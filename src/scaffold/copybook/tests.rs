use super::*;
use crate::spec::{FieldType, SignPlace, Trim};

/// The fields of the only record: name, position, width, type, scale, and what else is not a default.
fn fields(text: &str) -> Vec<String> {
    let records = parse(text).unwrap_or_else(|refusal| panic!("{refusal:?}"));
    assert_eq!(records.len(), 1);
    records[0].lines.iter().map(shown).collect()
}

fn shown(line: &Line) -> String {
    match line {
        Line::Remark(text) => format!("# {text}"),
        Line::Field { name, field, chosen } => {
            let kind = match field.data_type {
                FieldType::Text => "text",
                FieldType::Zoned => "zoned",
                FieldType::Packed => "packed",
                FieldType::Binary => "binary",
            };
            let mut shown = format!("{name} {}+{} {kind}", field.at, field.width);
            for (word, given) in [
                (format!(" scale {}", field.scale), field.scale != 0),
                (" unsigned".to_owned(), !field.signed),
                (format!(" {:?}", field.sign), field.sign != SignPlace::Trailing),
                (format!(" trim {:?}", field.trim), field.trim != Trim::End),
                (" not chosen".to_owned(), !chosen),
            ] {
                shown += if given { word.as_str() } else { "" };
            }
            shown
        }
    }
}

fn refused(text: &str) -> (usize, usize, String) {
    let refusal = parse(text).unwrap_err();
    (refusal.line, refusal.column, refusal.message)
}

#[test]
fn every_picture_and_usage_has_its_type_and_width() {
    for (clauses, expected) in [
        ("PIC X(30)", "a 1+30 text"),
        ("PIC A(3)XX9", "a 1+6 text"),
        ("PIC X", "a 1+1 text"),
        ("PIC X(5) JUSTIFIED RIGHT", "a 1+5 text trim Both"),
        ("PIC 9(9)", "a 1+9 zoned unsigned"),
        ("PIC S9(7)V99", "a 1+9 zoned scale 2"),
        ("PICTURE IS S9(3)V9(4) USAGE IS DISPLAY SIGN IS LEADING", "a 1+7 zoned scale 4 Leading"),
        ("PIC S99 SIGN TRAILING SEPARATE CHARACTER", "a 1+3 zoned TrailingSeparate"),
        ("PIC S99 LEADING SEPARATE", "a 1+3 zoned LeadingSeparate"),
        ("PIC SV9(3)", "a 1+3 zoned scale 3"),
        ("PIC S9(3)PPP", "a 1+3 zoned scale -3"),
        ("PIC SP(2)9(3)", "a 1+3 zoned scale 5"),
        ("PIC VPP99", "a 1+2 zoned scale 4 unsigned"),
        ("PIC S9(7)V99 COMP-3", "a 1+5 packed scale 2"),
        ("PIC S9(6) COMPUTATIONAL-3", "a 1+4 packed"),
        ("PIC 9(5) PACKED-DECIMAL", "a 1+3 packed unsigned"),
        ("PIC S9(4) COMP", "a 1+2 binary"),
        ("PIC S9(9) BINARY", "a 1+4 binary"),
        ("PIC 9(10)V99 USAGE COMP-4", "a 1+8 binary scale 2 unsigned"),
        ("PIC S9(18) COMP-5", "a 1+8 binary"),
        ("COMP-3 PIC S9(3) VALUE ZERO", "a 1+2 packed"),
    ] {
        assert_eq!(fields(&format!("01 R. 05 A {clauses}.")), [expected], "{clauses}");
    }
    let edited = fields("01 R. 05 A PIC Z,ZZ9.99CR. 05 B PIC X.");
    assert_eq!(
        edited[..2],
        ["a 1+10 text trim Both".to_owned(), "# A is edited for print, and read as text".to_owned()]
    );
    assert_eq!(edited[2], "b 11+1 text");
}

#[test]
fn fixed_form_ignores_its_margins_and_joins_lines() {
    let text = "\
000100* A customer.                                                     CUST0001
000200 01  CUST-REC.                                                    CUST0002
000300     05  CUST-                                                    CUST0003
000400-    ID    PIC 9(4).                                              CUST0004
000500     05  STATUS-CODE  PIC X VALUE 'it''s a value that goes on to t
000600-    'he next line'.                                              CUST0006
       EJECT
      D    05  DEBUGGED PIC X.
000700     05  FILLER       PIC X(10).                                  CUST0007
000800     05  LAST-NAME    PIC X(20).   *> a remark
";
    assert_eq!(fields(text), ["cust_id 1+4 zoned unsigned", "status_code 5+1 text", "last_name 16+20 text"]);
    assert_eq!(fields("01 R.\n\t05\tA\tPIC X.\n  05 B PIC X.\n"), ["a 1+1 text", "b 2+1 text"]);
}

#[test]
fn tables_are_fields_with_numbers() {
    let text = "01 R.\n 05 T OCCURS 2 TIMES INDEXED BY I.\n  10 A PIC X.\n  10 B PIC 99 OCCURS 2.\n 05 C PIC X.";
    let expected = [
        "a_1 1+1 text",
        "b_1_1 2+2 zoned unsigned",
        "b_1_2 4+2 zoned unsigned",
        "a_2 6+1 text",
        "b_2_1 7+2 zoned unsigned",
        "b_2_2 9+2 zoned unsigned",
        "c 11+1 text",
    ];
    assert_eq!(fields(text), expected);
}

#[test]
fn redefinitions_are_shown_and_not_chosen() {
    let text = "01 R.\n 05 A PIC X(6).\n 05 B REDEFINES A.\n  10 Y PIC 9(4).\n  10 M PIC 99.\n 05 C PIC X.";
    let expected = [
        "a 1+6 text",
        "# B redefines A; to read it, use these fields in place of those:",
        "y 1+4 zoned unsigned not chosen",
        "m 5+2 zoned unsigned not chosen",
        "c 7+1 text",
    ];
    assert_eq!(fields(text), expected);
    assert_eq!(parse(text).unwrap()[0].length, 7);
}

#[test]
fn groups_pass_their_usage_and_sign_on() {
    let text = "01 R.\n 05 G USAGE COMP-3.\n  10 A PIC S9(3).\n  10 B PIC S9(3) DISPLAY.\n 05 H SIGN LEADING SEPARATE.\n  10 C PIC S9.\n  10 D PIC 9.";
    let expected = ["a 1+2 packed", "b 3+3 zoned", "c 6+2 zoned LeadingSeparate", "d 8+1 zoned unsigned"];
    assert_eq!(fields(text), expected);
}

#[test]
fn equal_names_get_the_names_of_their_groups() {
    let text = "01 R.\n 05 FROM-DATE.\n  10 YEAR PIC 99.\n 05 TO-DATE.\n  10 YEAR PIC 99.\n 05 X PIC X.\n 05 X PIC X.";
    let names: Vec<String> = fields(text).iter().map(|field| field.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["from_date_year", "to_date_year", "x", "x_2"]);
}

#[test]
fn conditions_and_record_types_are_kept() {
    let text = "01 A. 05 K PIC X. 88 IS-A VALUE 'A'. 88 OTHER VALUES ARE 'B' THRU 'D'. 05 N PIC 9.\n01 B. 05 K PIC X.";
    let records = parse(text).unwrap();
    assert_eq!(
        records.iter().map(|record| (record.name.as_str(), record.length)).collect::<Vec<_>>(),
        [("a", 2), ("b", 1)]
    );
    let lines: Vec<String> = records[0].lines.iter().map(shown).collect();
    assert_eq!(lines, ["k 1+1 text", "# 88 IS-A: 'A'", "# 88 OTHER: 'B' THRU 'D'", "n 2+1 zoned unsigned"]);
    assert_eq!(parse("05 A PIC X. 05 B PIC X.").unwrap()[0].length, 2);
}

#[test]
fn whatever_is_not_understood_is_refused_with_its_place() {
    for (text, line, column, message) in [
        ("01 R.\n   05 A PIC X OCCURS 1 TO 9 TIMES\n     DEPENDING ON N.", 3, 6, "OCCURS with a variable count"),
        ("01 R.\n   05 A COMP-1.", 2, 9, "USAGE COMP-1 is not supported"),
        ("01 R.\n   05 A USAGE COMP-2.", 2, 15, "USAGE COMP-2 is not supported"),
        ("01 R.\n   05 A PIC X(0).", 2, 13, "invalid repetition"),
        ("01 R.\n   05 A PIC 9V9V9.", 2, 13, "invalid picture"),
        ("01 R.\n   05 A PIC Q.", 2, 13, "unknown symbol `Q`"),
        ("01 R.\n   05 A PIC N(4).", 2, 13, "`N` in `PIC N(4)` is not supported"),
        ("01 R.\n   05 A PIC S9(19) COMP.", 2, 13, "at most 18 digits"),
        ("01 R.\n   05 A PIC X COMP-3.", 2, 15, "no usage other than DISPLAY"),
        ("01 R.\n   05 A PIC S9(4) COMP SYNC.", 2, 24, "SYNCHRONIZED is not supported"),
        ("01 R.\n   05 A.\n   05 B PIC X.", 2, 7, "the field has no picture"),
        ("01 R.\n   05 A PIC X.\n   05 B REDEFINES C PIC X.", 3, 19, "`C` is not a field before"),
        ("01 R.\n   05 A PIC X WRONG.", 2, 15, "unknown clause `WRONG`"),
        ("01 R.\n   COPY OTHER.", 2, 4, "unsupported statement `COPY`"),
        ("01 R.\n   05 A PIC X", 2, 4, "no period"),
        ("01 R.\n   55 A PIC X.", 2, 4, "invalid level 55"),
        ("01 R.\n   05 A PIC X.\n   07 B PIC X.", 3, 7, "has no fields inside"),
        ("   05 A PIC X VALUE 'open.\n   05 B PIC X.", 2, 4, "is not closed"),
        ("", 1, 1, "describes no field"),
    ] {
        let (at, place, found) = refused(text);
        assert!(found.contains(message), "{text}: {found}");
        assert_eq!((at, place), (line, column), "{text}");
    }
}
