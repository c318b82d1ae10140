//! Tests of the effect of `$` in values.
//!
//! They follow `tests/spec/main-cf.md`, section 3; all results are those of Postfix 3.7's qmqpd with the same main.cf.

use proptest::prelude::*;

use super::*;

const DICTIONARY: &str =
    "compatibility_level = 3.6\nf = full\ne =\nnum = 10\ng = $undefd\nbad = ${\n";

fn expanded(value: &str) -> Result<String, String> {
    let config = config(&format!("{DICTIONARY}content_filter = {value}\n"));
    let result = config.content_filter();
    result
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .map_err(|error| {
            let warned = error.warnings().first().cloned();
            match warned {
                Some(warning) => {
                    let fatal = "dictionary mail_dict: macro processing error";
                    assert_eq!(error.to_string(), fatal);
                    warning
                }
                None => error.to_string(),
            }
        })
}

#[rustfmt::skip]
const VALUES: &[(&str, &str)] = &[
    ("$f", "full"),
    ("$(f)", "full"),
    ("${f}", "full"),
    ("${ f }", "full"),
    ("a$f.b", "afull.b"),
    ("$f_x-$f", "-full"),
    ("${f}{x}", "full{x}"),
    ("${f?yes}", "yes"),
    ("${e?yes}", ""),
    ("${undefd?yes}", ""),
    ("${f:no}", ""),
    ("${e:no}", "no"),
    ("${undefd:no}", "no"),
    ("${f?yes:no}", "yes:no"),
    ("${f?{yes}:{no}}", "yes"),
    ("${f ? {yes} : {no}}", "yes"),
    ("${f?  {yes}  }", "yes"),
    ("${e?{yes}:{no}}", "no"),
    ("${e?{yes}:no}", "no"),
    ("${e?{a}   :   b   }", "   b   "),
    ("${e?{a}:{  b  }   }", "  b  "),
    ("[${e: }]", "[ ]"),
    ("a${f? yes }b", "a yes b"),
    ("${f?a{b}c}", "a{b}c"),
    ("${f?{a{b}c}}", "a{b}c"),
    ("${f? {a} :b}c}", "ac}"),
    ("${f?$(num)${num}}", "1010"),
    ("$(f?$(num))", "10"),
    ("$$f and $$$f", "$f and $full"),
    ("$$$$", "$$"),
    ("${f?$$x}", "$x"),
    ("${f?(}}", "(}"),
    // A set value counts as set with any expansion.
    ("${g?yes}", "yes"),
    ("${bad?x}", "x"),
    // The other branch is not expanded, if it can be separated.
    ("${e?$bad}", ""),
    ("${undefd?${}}", ""),
    ("${f?{a}:{$bad}}", "a"),
    // An empty name is an unknown name, unless there is no other text.
    ("a ${ } b", "a  b"),
    ("${:x}", "x"),
    ("$1$_", ""),
    ("${{$num} == {10} ? {eq} : {ne}}", "eq"),
    ("${{$num} < {9} ? {lt} : {ge}}", "ge"),
    ("${{10x} < {9x} ? {lt} : {ge}}", "lt"),
    ("${{-1} < {0} ? {lt} : {ge}}", "lt"),
    ("${{010} == {10} ? {num} : {str}}", "num"),
    ("${{ a } == {a} ? {eq} : {ne}}", "ne"),
    ("${{} == {} ? {eq} : {ne}}", "eq"),
    ("${{10} == {10 }}", ""),
    ("${{a} == {a}}", "true"),
    ("[${{a} == {b}}]", "[]"),
    ("${ {$num} == {10} }", "true"),
    ("${{$num}=={11}:x}", "x"),
    ("${{a}=={a}?x:y}", "x:y"),
    ("${{a} < {ab} ? {lt} : {ge}}", "lt"),
    ("${{{a}} == {{a}}}", "true"),
    ("${{a)} == {a)}}", "true"),
    ("${{9223372036854775807} > {1}}", "true"),
    ("${{99999999999999999999} == {x}}", ""),
    ("${{3.10} <level {3.6} ? {lt} : {ge}}", "ge"),
    ("${{3} ==level {3.0.0} ? {eq} : {ne}}", "eq"),
    ("${{$compatibility_level} >=level {3} ? {ge3} : {lt3}}", "ge3"),
    ("${{3.1023.1023} <level {4}}", "true"),
    ("${{8796093022207} >level {3}}", "true"),
    ("${{3. 0} ==level { +3} ? {eq} : {ne}}", "eq"),
];

#[rustfmt::skip]
const MISTAKES: &[(&str, &str)] = &[
    ("cost: 5$", r#"empty macro name: "cost: 5$""#),
    ("a ${} b", r#"empty macro name: "a ${} b""#),
    ("$-", r#"empty macro name: "$-""#),
    ("$$$", r#"empty macro name: "$$$""#),
    ("abc ${f def", r#"truncated macro reference: "abc ${f def""#),
    ("x $(f} y", r#"truncated macro reference: "x $(f} y""#),
    ("${f?$bad}", r#"truncated macro reference: "${""#),
    ("${f-x}", r#"attribute name syntax error at: "...f>>>-x""#),
    ("${$f}", r#"attribute name syntax error at: "...>>>$f""#),
    ("${  $f}", r#"attribute name syntax error at: "...  >>>$f""#),
    ("${ff f-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx}", r#"attribute name syntax error at: "...ff>>> f-xxxxxxxxxxxxxxxxx""#),
    ("${domain_to_ascii{x}}", r#"attribute name syntax error at: "...domain_to_ascii>>>{x}""#),
    ("${f?{yes}no}", r#"":" expected at: "...yes}>>>no""#),
    ("${f? {yes} ? {a}}", r#"":" expected at: "...yes}>>>? {a}""#),
    ("$(f?{a}}:b)", r#"":" expected at: "...a}>>>}:b""#),
    ("${f?{yes}:{no}x}", r#"unexpected input at: "...no}>>>x""#),
    ("[${f: {a} b}]", r#"unexpected input at: "...a}>>>b""#),
    ("${{a} ==foo {a} ? {eq} : {ne}}", r#"bad operator suffix at: "...==>>>foo""#),
    ("${{a} <levelx {b}}", r#"bad operator suffix at: "...<>>>levelx""#),
    ("${{a} == b ? {eq} : {ne}}", r#""{expression}" expected at: "...{a} ==>>> b ? {eq} : {ne}""#),
    ("${{a} ==level b}", r#""{expression}" expected at: "...{a} ==>>> b""#),
    ("${{a} == {a} x}", r#""?" or ":" expected at: "...}>>>x""#),
    ("${{x} ==level {3} ? {eq} : {ne}}", r#"malformed compatibility level syntax: "x""#),
    ("${{3} ==level {-3}}", r#"malformed compatibility level syntax: "-3""#),
    ("${{3} ==level {3.1024}}", r#"malformed compatibility level syntax: "3.1024""#),
    ("${{3} ==level {3.1.1.1}}", r#"malformed compatibility level syntax: "3.1.1.1""#),
    ("${{8796093022208} >level {3}}", r#"malformed compatibility level syntax: "8796093022208""#),
    ("$(f?{a)", r#"unbalanced {} in attribute expression: "{a""#),
    ("$(f?  {a}:  {bc ) x", r#"unbalanced {} in attribute expression: "{bc ""#),
    ("$({a{} == {a})", r#"unbalanced {} in attribute expression: "{a{} == {a}""#),
    ("${{99999999999999999999} == {1}}", "mac_exp_eval: bad conversion: 99999999999999999999"),
];

#[test]
fn values_expand_as_in_postfix() {
    for (value, result) in VALUES {
        assert_eq!(expanded(value).as_deref(), Ok(*result), "{value}");
    }
}

#[test]
fn mistakes_are_described_in_postfixs_words() {
    for (value, warning) in MISTAKES {
        assert_eq!(expanded(value), Err((*warning).to_owned()), "{value}");
    }
}

#[test]
fn an_operator_that_is_none_is_shown_with_what_follows_it() {
    for (value, at) in [
        ("${{a} =~ {a} ? {eq} : {ne}}", "=~ {a} ? {eq} : {ne}"),
        ("${{a} === {a}}", "=== {a}"),
        ("${{a}==?x}", "==?x"),
        ("${{a} }", ""),
        ("${{a}}", ""),
        ("${{a}b} == {a}}", "b"),
    ] {
        let expected = r#""==" or "!="" or "<"" or "<="" or ">="" or ">" expected at: "...a}>>>"#;
        assert_eq!(expanded(value), Err(format!("{expected}{at}\"")), "{value}");
    }
}

#[test]
fn values_may_refer_to_values_a_hundred_deep() {
    let nested = |n: usize| {
        let mut main_cf = String::from("content_filter = $a0\n");
        for i in 0..n {
            main_cf.push_str(&format!("a{i} = $a{}\n", i + 1));
        }
        main_cf.push_str(&format!("a{n} = end\n"));
        complaints("content_filter", &main_cf).first().cloned()
    };
    assert_eq!(nested(99), None);
    let deep = |at: &str| Some(format!("unreasonable macro call nesting: \"{at}\""));
    assert_eq!(nested(100), deep("end"));
    assert_eq!(nested(101), deep("a101"));
    assert_eq!(nested(500), deep("a101"));

    for choice in ["f?", "x:"] {
        let start = format!("${{{choice}{{");
        let choices = |n: usize| expanded(&format!("{}x{}", start.repeat(n), "}}".repeat(n)));
        assert_eq!(choices(100).as_deref(), Ok("x"), "{choice}");
        assert_eq!(choices(101).err(), deep("x"), "{choice}");
        let inner = format!("{choice}{{x}}");
        assert_eq!(choices(102).err(), deep(&inner), "{choice}");
    }
}

#[test]
fn values_that_refer_to_themselves_come_to_an_end() {
    let first = |main_cf: &str| complaints("content_filter", main_cf).remove(0);
    assert_eq!(
        first("content_filter = $a\na = $b\nb = $a\n"),
        "unreasonable macro call nesting: \"b\""
    );
    assert_eq!(
        first("content_filter = ${{$content_filter} == {x}}\n"),
        "unreasonable macro call nesting: \"content_filter\""
    );
    let doubling: String = (0..99)
        .map(|i| format!("a{i} = $a{0}$a{0}\n", i + 1))
        .collect();
    let said = first(&format!("content_filter = $a0\n{doubling}"));
    assert!(
        said.starts_with("unreasonable macro call nesting"),
        "{said}"
    );
}

proptest! {
    #[test]
    fn any_value_ends_in_text_or_in_an_error(
        lines in prop::collection::vec("[fe${}():?=!<>a1 \t\\pL]{0,40}", 1..4),
    ) {
        let named = lines.iter().zip(["f", "e", "a"]);
        let main_cf: String = named.map(|(value, name)| format!("{name} = {value}\n")).collect();
        let config = config(&format!("{main_cf}content_filter = {}$f\n", lines[0]));
        let _either = config.content_filter();
    }

    #[test]
    fn any_file_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let directory = directory_with(&bytes);
        if let Ok(config) = directory.load(&[]) {
            for name in config.names_set() {
                let _either = config.given(name, name);
            }
        }
    }
}
