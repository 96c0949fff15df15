# Completion of gptdist in bash; `gptdist completion bash` writes this file.

@TABLE@

# Add what begins with $2 and is of kind $1.
_gptdist_value() {
  local kind=${1%\*} cur=$2
  case "$kind" in
  @*) local IFS=,; _gptdist_add $(compgen -W "${kind#@}" -- "$cur") ;;
  keys-*) _gptdist_key "${kind#keys-}" "$cur" ;;
  dir) _gptdist_paths "$(compgen -d -- "$cur")" ;;
  file) _gptdist_paths "$(compgen -f -- "$cur")" ;;
  yaml) _gptdist_paths "$(compgen -d -- "$cur"; compgen -f -X '!*.y*ml' -- "$cur")" ;;
  esac
}

_gptdist_add() {
  local IFS=$' \t\n'
  COMPREPLY+=($*)
}

_gptdist_paths() {
  local path
  compopt -o filenames 2>/dev/null
  while IFS= read -r path; do
    [[ -n $path ]] && COMPREPLY+=("$path")
  done <<<"$1"
}

# Keys of a config of kind $1 up to the next dot, or the values of the one that stands before '='.
_gptdist_key() {
  local cur=$2 entry name rest last= gd_keys
  _gptdist_keys "$1"
  for entry in "${gd_keys[@]}"; do
    name=${entry%%:*}
    if [[ $cur == "$name="* ]]; then
      rest=${entry#*:}
      _gptdist_value "${rest%%:*}" "${cur#*=}"
      gd_before=$name=
      return
    elif [[ $name == "$cur"* ]]; then
      rest=${name#"$cur"}
      if [[ $rest == *.* ]]; then name=$cur${rest%%.*}.; else name=$name=; fi
      [[ $name == "$last" ]] || COMPREPLY+=("$name")
      last=$name
    fi
  done
  compopt -o nospace 2>/dev/null
}

_gptdist() {
  # Not COMP_WORDS: bash breaks them at '=', which is a part of overrides.
  local line=${COMP_LINE:0:COMP_POINT} cur= word path= pending= gd_found gd_before= index
  local -a typed gd_subs gd_options gd_values
  local position=0
  COMPREPLY=()
  read -ra typed <<<"$line"
  if [[ $line != *[[:space:]] ]]; then
    cur=${typed[${#typed[@]} - 1]}
    unset "typed[${#typed[@]}-1]"
  fi
  _gptdist_command ''
  for word in "${typed[@]:1}"; do
    if [[ $word == -* ]]; then
      pending=
      if [[ $word != *=* ]] && _gptdist_option "$word" && [[ $gd_found != - ]]; then pending=$gd_found; fi
    elif [[ -n $pending ]]; then
      [[ $pending == *\* ]] || pending=
    elif ((${#gd_subs[@]})); then
      path="${path:+$path }$word"
      _gptdist_command "$path"
    else
      ((position++))
    fi
  done
  if [[ $cur == -*=* ]]; then
    _gptdist_option "${cur%%=*}" && _gptdist_value "$gd_found" "${cur#*=}"
    gd_before=${cur%%=*}=
  elif [[ $cur == -* ]]; then
    for word in "${gd_options[@]}"; do
      [[ ${word%%:*} == "$cur"* ]] && COMPREPLY+=("${word%%:*}")
    done
  elif [[ -n $pending ]]; then
    _gptdist_value "$pending" "$cur"
  elif ((${#gd_subs[@]})); then
    for word in "${gd_subs[@]}"; do
      [[ ${word%%:*} == "$cur"* ]] && COMPREPLY+=("${word%%:*}")
    done
  elif ((${#gd_values[@]})); then
    if ((position >= ${#gd_values[@]})); then
      position=$((${#gd_values[@]} - 1))
      [[ ${gd_values[position]} == *\* ]] || return
    fi
    _gptdist_value "${gd_values[position]}" "$cur"
  fi
  # Where bash breaks words at '=', it replaces only what stands behind it.
  if [[ -n $gd_before && $COMP_WORDBREAKS != *=* ]]; then
    for index in "${!COMPREPLY[@]}"; do COMPREPLY[index]=$gd_before${COMPREPLY[index]}; done
  fi
}

complete -F _gptdist gptdist
