#compdef gptdist
# Completion of gptdist in zsh; `gptdist completion zsh` writes this file.

@TABLE@

# Offer entries 'word:kind:text' with their texts.
_gptdist_describe() {
  local title=$1 entry
  local -a shown
  shift
  for entry in "$@"; do shown+=("${entry%%:*}:${${entry#*:}#*:}"); done
  if [[ $title == option ]]; then _describe -o "$title" shown; else _describe "$title" shown; fi
}

# Offer what is of kind $1.
_gptdist_value() {
  local kind=${1%\*}
  case "$kind" in
  @*) compadd -- "${(@s:,:)${kind#@}}" ;;
  keys-*) _gptdist_key "${kind#keys-}" ;;
  dir) _files -/ ;;
  file) _files ;;
  yaml) _files -g '*.(yaml|yml)' ;;
  esac
}

# Keys of a config of kind $1 up to the next dot, or the values of the one that stands before '='.
_gptdist_key() {
  local cur=$PREFIX entry name rest
  local -a gd_keys found
  _gptdist_keys "$1"
  for entry in "${gd_keys[@]}"; do
    name=${entry%%:*}
    if [[ $cur == "$name="* ]]; then
      rest=${entry#*:}
      compset -P '*='
      _gptdist_value "${rest%%:*}"
      return
    elif [[ $name == "$cur"* ]]; then
      rest=${name#"$cur"}
      if [[ $rest == *.* ]]; then found+=("$cur${rest%%.*}."); else found+=("$name="); fi
    fi
  done
  compadd -S '' -- "${(@u)found}"
}

_gptdist() {
  local cur=${words[CURRENT]} word where='' pending='' gd_found
  local -a gd_subs gd_options gd_values
  local -i position=1
  _gptdist_command ''
  for word in "${(@)words[2,CURRENT-1]}"; do
    if [[ $word == -* ]]; then
      pending=''
      if [[ $word != *=* ]] && _gptdist_option "$word" && [[ $gd_found != - ]]; then pending=$gd_found; fi
    elif [[ -n $pending ]]; then
      [[ $pending == *\* ]] || pending=''
    elif (( $#gd_subs )); then
      where="${where:+$where }$word"
      _gptdist_command "$where"
    else
      position+=1
    fi
  done
  if [[ $cur == -*=* ]]; then
    _gptdist_option "${cur%%=*}" || return 1
    compset -P '*='
    _gptdist_value "$gd_found"
  elif [[ $cur == -* ]]; then
    _gptdist_describe option "${gd_options[@]}"
  elif [[ -n $pending ]]; then
    _gptdist_value "$pending"
  elif (( $#gd_subs )); then
    _gptdist_describe command "${gd_subs[@]}"
  elif (( $#gd_values )); then
    if (( position > $#gd_values )); then
      position=$#gd_values
      [[ ${gd_values[position]} == *\* ]] || return 1
    fi
    _gptdist_value "${gd_values[position]}"
  fi
}

# As a file of $fpath it is the function itself; sourced, it is named to the completion system.
if [[ $funcstack[1] == _gptdist ]]; then _gptdist "$@"; else compdef _gptdist gptdist; fi
