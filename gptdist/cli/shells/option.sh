# Set gd_found to the value kind of option $1; fail where there is none.
_gptdist_option() {
  local entry rest
  for entry in "${gd_options[@]}"; do
    if [[ ${entry%%:*} == "$1" ]]; then
      rest=${entry#*:}
      gd_found=${rest%%:*}
      return 0
    fi
  done
  return 1
}
