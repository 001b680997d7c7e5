# What the scripts here share: their options, where the node is, how it is called, what a failure exits with.
# Sourced, never run. A script sets OPTIONS to those of `--reason --request-id --dry-run --json` that it takes.

set -euo pipefail

readonly FAILED=1 USAGE=2 REFUSED=3 NOT_FOUND=4 NOT_PERMITTED=5 UNREACHABLE=6 DEADLINE=7
readonly LOST=78 DIAL_FAILED=1 # of grpcurl: 64 + UNAVAILABLE; and no status, because nobody answered
readonly ATTEMPTS=3            # of a change while the node is unavailable, a second apart

addresses=${TANDEM_CONTROL:-unix:var/tandem/control.sock}
timeout_s=10
reason=""
request_id=""
dry_run=false
as_json=false
value="" # of the option taken last
words=() # what is left of the command line without options

# -- what everybody says alike ---------------------------------------------------------------------

usage() { # print the comment at the top of the script
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

usage_error() { # TEXT
    echo "${0##*/}: $1; see ${0##*/} --help" >&2
    exit "$USAGE"
}

say() { # TEXT: for people, beside what the script prints
    echo "${0##*/}: $1" >&2
}

# -- options ---------------------------------------------------------------------------------------

value_of() { # OPTION VALUE...: set `value`, or end the script where it is missing
    [[ $# -ge 2 ]] || usage_error "$1 needs a value"
    value=$2
}

take() { # ARGUMENT...: take one of the options that many scripts have, and set `taken` to its length
    taken=2
    case $1 in
        -h | --help) usage && exit 0 ;;
        -a | --address) value_of "$@" && addresses=$value ;;
        --timeout)
            value_of "$@" && timeout_s=$value
            [[ $timeout_s =~ ^[0-9]+(\.[0-9]+)?$ ]] || usage_error "--timeout needs seconds, was $timeout_s"
            ;;
        --reason | --request-id | --dry-run | --json)
            [[ " $OPTIONS " == *" $1 "* ]] || usage_error "there is no option $1"
            case $1 in
                --reason) value_of "$@" && reason=$value ;;
                --request-id) value_of "$@" && request_id=$value ;;
                --dry-run) dry_run=true taken=1 ;;
                --json) as_json=true taken=1 ;;
            esac
            ;;
        -*) usage_error "there is no option $1" ;;
        *) words+=("$1") && taken=1 ;;
    esac
}

take_all() { # ARGUMENT...: for scripts without options of their own
    while (($#)); do
        take "$@"
        shift "$taken"
    done
}

full_name() { # COLLECTION NAME: `mm-btc` and `instances/mm-btc` mean the same
    printf '%s/%s' "$1" "${2#"$1"/}"
}

# -- where the node is -----------------------------------------------------------------------------

scratch=$(mktemp -d)
watching=""
trap 'if [[ -n $watching ]]; then kill "$watching" 2>/dev/null; fi; rm -rf "$scratch"' EXIT

PATH=$PATH:${GOPATH:-$HOME/go}/bin # where `go install` puts grpcurl
for tool in grpcurl jq; do
    command -v "$tool" >/dev/null || { say "needs $tool, which is not installed" && exit "$FAILED"; }
done

aim() { # ADDRESS: set what grpcurl is told about it
    flags=(-connect-timeout 2 -keepalive-time 20 -emit-defaults)
    place=${1#tls:}
    case $1 in
        unix:* | /* | ./* | ../*)
            place=${1#unix:}
            [[ $place == /* ]] || place=$PWD/$place
            flags+=(-plaintext -unix)
            ;;
        localhost:* | 127.*:* | "[::1]":*) flags+=(-plaintext) ;;
        *:*)
            [[ -z ${TANDEM_CA:-} ]] || flags+=(-cacert "$TANDEM_CA")
            [[ -z ${TANDEM_CERT:-} ]] || flags+=(-cert "$TANDEM_CERT" -key "${TANDEM_KEY:?is not set, TANDEM_CERT is}")
            ;;
        *) usage_error "expected unix:PATH or HOST:PORT, was \"$1\"" ;;
    esac
    # grpcurl reads the variable itself, so that no list of processes shows the token.
    # shellcheck disable=SC2016
    [[ -z ${TANDEM_TOKEN:-} ]] || flags+=(-expand-headers -H 'authorization: Bearer ${TANDEM_TOKEN}')
}

find_node() { # aim at the address given; of several, at the one whose node trades, or return 1
    local address listed
    IFS=, read -ra listed <<<"$addresses"
    aim "${listed[0]:-}"
    ((${#listed[@]} > 1)) || return 0
    for address in "${listed[@]}"; do
        aim "$address"
        try grpc.health.v1.Health/Check '{"service": "tandem.primary"}' || continue
        [[ $(jq -r .status <<<"$answer") != SERVING ]] || return 0
    done
    return 1
}

connect() { # as `find_node`, and end the script where there is none
    find_node || { say "none of $addresses trades" && exit "$UNREACHABLE"; }
    [[ $dry_run == false ]] || say "nothing is changed (--dry-run)"
}

# -- calls -----------------------------------------------------------------------------------------

try() { # METHOD BODY: set `answer`, or return what grpcurl exited with
    local status=0
    answer=$(grpcurl "${flags[@]}" -format-error -max-time "$timeout_s" -d @ "$place" "$1" \
        <<<"$2" 2>"$scratch/problem") || status=$?
    return "$status"
}

tell() { # STATUS of grpcurl: say what was wrong, and set `code` to what that exits with
    local text
    text=$(jq -r .message "$scratch/problem" 2>/dev/null) || text=$(<"$scratch/problem")
    say "${text#failed to query for service descriptor*\": }"
    case $1 in
        67 | 75) code=$USAGE ;;
        69) code=$NOT_FOUND ;;
        70 | 73 | 74) code=$REFUSED ;;
        71 | 80) code=$NOT_PERMITTED ;;
        "$LOST") code=$UNREACHABLE ;;
        68) code=$DEADLINE ;;
        *) code=$FAILED ;;
    esac
    # What grpcurl could not even ask for has no status.
    case $1:$text in
        "$DIAL_FAILED":*"code = Unauthenticated"*) code=$NOT_PERMITTED ;;
        "$DIAL_FAILED":*"dial target"* | "$DIAL_FAILED":*"code = Unavailable"*) code=$UNREACHABLE ;;
    esac
}

call() { # METHOD BODY: set `answer`, or end the script
    local status=0
    try "$1" "$2" || status=$?
    ((status == 0)) || { tell "$status" && exit "$code"; }
}

try_change() { # METHOD BODY: as `try`, and repeated while the node is unavailable: it has its effect once
    local body id=$request_id status attempt
    [[ -n $id ]] || id=ops-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
    body=$(jq -c --arg id "$id" --argjson dry "$dry_run" '. + {request_id: $id, validate_only: $dry}' <<<"$2")
    for ((attempt = 1; ; attempt++)); do
        status=0
        try "$1" "$body" || status=$?
        ((status == LOST && attempt < ATTEMPTS)) || break
        sleep 1
    done
    if ((status == LOST || status == 68)); then
        say "it may have been carried out all the same; repeated with --request-id $id it has its effect once"
    fi
    return "$status"
}

change() { # METHOD BODY: set `answer`, or end the script
    local status=0
    try_change "$1" "$2" || status=$?
    ((status == 0)) || { tell "$status" && exit "$code"; }
}

each_page() { # METHOD BODY FILTER: print what the filter takes from each page of a list
    local token=""
    while :; do
        call "$1" "$(jq -c --arg token "$token" '. + {page_size: 1000, page_token: $token}' <<<"$2")"
        jq -r "$3" <<<"$answer"
        token=$(jq -r .next_page_token <<<"$answer")
        [[ -n $token ]] || break
    done
}

# -- watches ---------------------------------------------------------------------------------------

follow() { # METHOD COUNT FILTER: print what a watch says, and watch again where it was lost
    # The filter makes lines of each answer: `>TEXT` is printed, `=LSN` is where to go on. The script's
    # `body` prints the request, with `resume_at` in mind. COUNT lines are printed, or without end.
    local left=$2 status was_there=false line
    while :; do
        rm -f "$scratch/answers"
        mkfifo "$scratch/answers"
        grpcurl "${flags[@]}" -format-error -d "$(body)" "$place" "$1" >"$scratch/answers" 2>"$scratch/problem" &
        watching=$!
        while IFS= read -r line; do
            was_there=true
            case $line in
                =*) resume_at=${line#=} ;;
                *)
                    printf '%s\n' "${line#>}"
                    left=$((left - 1))
                    ((left != 0)) || return 0
                    ;;
            esac
        done < <(jq --unbuffered -r "$3" <"$scratch/answers")
        status=0
        wait "$watching" || status=$?
        watching=""
        # 72 is RESOURCE_EXHAUSTED: we read too slowly and were dropped.
        if [[ $was_there == false ]] || ((status != 0 && status != LOST && status != DIAL_FAILED && status != 72)); then
            tell "$status" && exit "$code"
        fi
        say "the watch was lost; trying again"
        sleep 1
        until find_node; do sleep 1; done
    done
}
